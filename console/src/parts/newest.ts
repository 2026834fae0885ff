import type { Connection } from './pages.ts';

/**
 * Turns a connection that was read by `last` and `before` round, so that `PagedList` shows the newest first. The
 * document names its variables `first` and `after` all the same.
 */
export function newestFirst<Row>(
  connection: { nodes: readonly Row[]; pageInfo: { hasPreviousPage: boolean; startCursor?: string | null } } | null | undefined,
): Connection<Row> | null {
  if (!connection) return null;
  const { nodes, pageInfo } = connection;
  return { nodes: [...nodes].reverse(), pageInfo: { hasNextPage: pageInfo.hasPreviousPage, endCursor: pageInfo.startCursor ?? null } };
}
