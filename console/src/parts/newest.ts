import type { Connection } from './pages.ts';

/** A connection that is read from its end (`last: $first, before: $after`), as `PagedList` shows it: the newest first. */
export function newestFirst<Row>(
  connection:
    | { nodes: readonly Row[]; pageInfo: { hasPreviousPage: boolean; startCursor?: string | null } }
    | null
    | undefined,
): Connection<Row> | null {
  if (!connection) return null;
  const { nodes, pageInfo } = connection;
  return { nodes: [...nodes].reverse(), pageInfo: { hasNextPage: pageInfo.hasPreviousPage, endCursor: pageInfo.startCursor ?? null } };
}
