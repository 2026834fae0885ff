import { type Wanted, verify } from './verifier.ts';

/** The page sends what is wanted, then the bundle in pieces; each piece is asked for, so that none pile up. */
export type ToWorker = { type: 'start'; wanted: Wanted } | { type: 'chunk'; bytes: Uint8Array<ArrayBuffer> } | { type: 'end' };
export type FromWorker =
  | { type: 'more' }
  | { type: 'progress'; events: number; of: number }
  | { type: 'done'; verdict: Awaited<ReturnType<typeof verify>> }
  | { type: 'broke'; message: string };

const tell = (message: FromWorker) => postMessage(message);
let take: ((bytes: Uint8Array | null) => void) | null = null;

async function* pieces(): AsyncGenerator<Uint8Array> {
  for (;;) {
    const next = new Promise<Uint8Array | null>((resolve) => (take = resolve));
    tell({ type: 'more' });
    const bytes = await next;
    if (!bytes) return;
    yield bytes;
  }
}

addEventListener('message', ({ data }: MessageEvent<ToWorker>) => {
  if (data.type === 'chunk') take?.(data.bytes);
  else if (data.type === 'end') take?.(null);
  else {
    verify(pieces(), data.wanted, (progress) => tell({ type: 'progress', ...progress })).then(
      (verdict) => tell({ type: 'done', verdict }),
      (error: unknown) => tell({ type: 'broke', message: String(error) }),
    );
  }
});
