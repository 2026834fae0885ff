import { type Client, Fault } from '@tenancy/client';

/**
 * Fetches with the token and offers what comes as a download. The browser keeps a blob's bytes itself, on the disk where
 * they are many: no second copy lies in the page's memory.
 */
export async function download(client: Client, address: string, fallbackName: string): Promise<void> {
  const response = await client.fetch(address);
  if (!response.ok) throw await faultOfResponse(response);
  const name = /filename="([^"]+)"/.exec(response.headers.get('content-disposition') ?? '')?.[1] ?? fallbackName;
  const url = URL.createObjectURL(await response.blob());
  const link = document.createElement('a');
  link.href = url;
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}

/** The routes besides GraphQL answer `{"error": {"code", "message"}}`. */
export async function faultOfResponse(response: Response): Promise<Fault> {
  try {
    const { error } = (await response.json()) as { error: { code: string; message: string } };
    return new Fault(error.code, error.message);
  } catch {
    return new Fault('INTERNAL', `status ${response.status}`);
  }
}
