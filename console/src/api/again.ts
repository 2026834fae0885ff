import { useCallback, useEffect } from 'react';
import { type AnyVariables, useClient } from 'urql';
import type { TypedDocument } from '@tenancy/client';

/**
 * Reads a document anew that a screen shows. The operators' plane has no feed: there a screen reads again after its own
 * commands, and with `everyMs` while the page is seen.
 */
export function useReadAgain<Result, Variables>(
  document: TypedDocument<Result, Variables>,
  variables: Variables,
  everyMs?: number,
): () => Promise<void> {
  const client = useClient();
  const text = document.toString();
  const identity = JSON.stringify(variables);
  const again = useCallback(async () => {
    await client.query(text, JSON.parse(identity) as AnyVariables, { requestPolicy: 'network-only' }).toPromise();
  }, [client, text, identity]);
  useEffect(() => {
    if (!everyMs) return;
    const timer = setInterval(() => {
      if (globalThis.document.visibilityState === 'visible') void again();
    }, everyMs);
    return () => clearInterval(timer);
  }, [again, everyMs]);
  return again;
}
