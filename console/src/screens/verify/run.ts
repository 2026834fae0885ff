import workerUrl from './worker.ts?worker&url';
import { type Progress, type Verdict, verify, type Wanted } from './verifier.ts';
import type { FromWorker, ToWorker } from './worker.ts';

interface Policies {
  createPolicy(name: string, rules: { createScriptURL: (url: string) => string }): { createScriptURL(url: string): string };
}

/** The policy of the page lets only named policies make a script's address. This one knows one address. */
let policy: { createScriptURL(url: string): string } | null = null;
function workerAddress(): string {
  const { trustedTypes } = globalThis as { trustedTypes?: Policies };
  policy ??= trustedTypes?.createPolicy('verifier', { createScriptURL: () => workerUrl }) ?? { createScriptURL: () => workerUrl };
  return policy.createScriptURL(workerUrl);
}

/** Verifies a bundle as it comes: in a worker, or in the page where there is none. */
export async function verifyStream(
  stream: ReadableStream<Uint8Array>,
  wanted: Wanted,
  progress: (progress: Progress) => void,
  signal: AbortSignal,
): Promise<Verdict> {
  const reader = stream.getReader();
  try {
    let worker: Worker | null = null;
    try {
      worker = new Worker(workerAddress(), { type: 'module' });
    } catch {
      // No workers here: the page does it, one run at a time.
    }
    return worker ? await inWorker(worker, reader, wanted, progress, signal) : await inPage(reader, wanted, progress, signal);
  } finally {
    await reader.cancel().catch(() => undefined);
  }
}

type Reader = ReadableStreamDefaultReader<Uint8Array>;

function inWorker(worker: Worker, reader: Reader, wanted: Wanted, progress: (progress: Progress) => void, signal: AbortSignal) {
  return new Promise<Verdict>((resolve, reject) => {
    const tell = (message: ToWorker, transfer: Transferable[] = []) => worker.postMessage(message, transfer);
    signal.addEventListener('abort', () => reject(signal.reason as Error), { once: true });
    worker.onerror = () => reject(new Error('the worker broke'));
    worker.onmessage = ({ data }: MessageEvent<FromWorker>) => {
      if (data.type === 'progress') progress(data);
      else if (data.type === 'done') resolve(data.verdict);
      else if (data.type === 'broke') reject(new Error(data.message));
      else {
        reader.read().then(({ value, done }) => {
          if (done) return tell({ type: 'end' });
          // A copy of its own, which then moves to the worker.
          const bytes = value.slice();
          tell({ type: 'chunk', bytes }, [bytes.buffer]);
        }, reject);
      }
    };
    tell({ type: 'start', wanted });
  }).finally(() => worker.terminate());
}

function inPage(reader: Reader, wanted: Wanted, progress: (progress: Progress) => void, signal: AbortSignal) {
  const pieces = async function* () {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      // Pieces that are small leave the page its turns.
      for (let at = 0; at < value.length; at += 65_536) {
        signal.throwIfAborted();
        yield value.subarray(at, at + 65_536);
        await new Promise((resolve) => setTimeout(resolve));
      }
    }
  };
  return verify(pieces(), wanted, progress);
}
