import { useCallback, useEffect, useMemo, useReducer, useState } from 'react';
import { type AnyVariables, type Client, useClient } from 'urql';
import { type Fault, type TypedDocument } from '@tenancy/client';
import { faultOf, type Reading, useRead } from '../api/hooks.ts';

export const PAGE_SIZE = 50;
/** Pages on each side of what is seen that follow the cache. Pages farther away keep what they last showed. */
const NEAR = 1;
/** The next page is read when so many rows are left. */
const AHEAD = 25;

export interface Connection<Row> {
  nodes: readonly Row[];
  pageInfo: { hasNextPage: boolean; endCursor?: string | null };
}

/** The first page of a list, for what else a screen shows of it. It is the list's own request. */
export function useFirstPage<Result, Variables extends { first: number; after?: string | null }>(
  document: TypedDocument<Result, Variables>,
  variables: Omit<Variables, 'first' | 'after'>,
): Reading<Result> {
  return useRead(document, { ...variables, first: PAGE_SIZE, after: null } as Variables);
}

interface Page<Row> {
  after: string | null;
  rows: readonly Row[];
  hasNext: boolean;
  end: string | null;
}

/**
 * The pages of a connection, each a query of its own. Cursors name places, so a page that is read anew moves no other.
 * Appending a page costs what the page costs, however long the list is.
 */
export class Pages<Result, Row> {
  readonly #pages: Page<Row>[] = [];
  /** How many rows lie before each page. */
  #starts: number[] = [];
  readonly #following = new Map<number, () => void>();
  #seen: [number, number] = [0, 0];
  fault: Fault | null = null;

  constructor(
    private readonly client: Pick<Client, 'query'>,
    private readonly document: string,
    private readonly variables: object,
    private readonly connection: (result: Result) => Connection<Row> | null | undefined,
    private readonly keep: ((row: Row) => boolean) | undefined,
    /** The screen reads the first page itself: then one request is enough. */
    private readonly known: boolean,
    private readonly changed: () => void,
  ) {}

  get loaded(): boolean {
    return this.#pages.length > 0;
  }
  get count(): number {
    const last = this.#pages.length - 1;
    return last < 0 ? 0 : (this.#starts[last] ?? 0) + (this.#pages[last]?.rows.length ?? 0);
  }
  get more(): boolean {
    return this.#pages.at(-1)?.hasNext ?? true;
  }

  row(index: number): Row | undefined {
    const page = this.#pageOf(index);
    return this.#pages[page]?.rows[index - (this.#starts[page] ?? 0)];
  }

  /** Follows the pages around these rows, and reads on where the end is near. */
  see(first: number, last: number): void {
    this.#seen = [first, last];
    const from = Math.max(0, this.#pageOf(first) - NEAR);
    const to = Math.min(Math.max(0, this.#pages.length - 1), this.#pageOf(last) + NEAR);
    for (const [page, stop] of this.#following) {
      if (page < from || page > to) {
        if (page >= this.#pages.length) continue;
        stop();
        this.#following.delete(page);
      }
    }
    for (let page = from; page <= to; page++) this.#follow(page);
    if (this.loaded && this.more && last >= this.count - AHEAD) this.#follow(this.#pages.length);
  }

  retry(): void {
    this.fault = null;
    for (const stop of this.#following.values()) stop();
    this.#following.clear();
    this.see(...this.#seen);
    this.changed();
  }

  stop(): void {
    for (const stop of this.#following.values()) stop();
    this.#following.clear();
  }

  #follow(page: number): void {
    if (this.#following.has(page)) return;
    const after = page === 0 ? null : (this.#pages[page]?.after ?? this.#pages[page - 1]?.end ?? null);
    if (page > 0 && after === null) return;
    const variables = { ...this.variables, first: PAGE_SIZE, after } as AnyVariables;
    // The place is taken before the answer, which the cache may give at once.
    this.#following.set(page, () => undefined);
    const { unsubscribe } = this.client
      // A page that is there already is trusted: events make it stale.
      .query<Result>(this.document, variables, {
        requestPolicy: this.#pages[page] || (page === 0 && this.known) ? 'cache-first' : 'cache-and-network',
      })
      .subscribe(({ data, error, stale }) => {
        const connection = data ? this.connection(data) : null;
        if (connection) {
          this.fault = null;
          this.#pages[page] = {
            after,
            rows: this.keep ? connection.nodes.filter(this.keep) : connection.nodes,
            hasNext: connection.pageInfo.hasNextPage,
            end: connection.pageInfo.endCursor ?? null,
          };
          this.#count(page);
          this.#join(page);
        } else if (error) {
          this.fault = faultOf(error);
        } else {
          // The cache does not read anew what became stale again right after it was read. Then nobody else will.
          if (data && !stale && this.#pages[page]) {
            void this.client.query<Result>(this.document, variables, { requestPolicy: 'network-only' }).toPromise();
          }
          return;
        }
        this.changed();
      });
    if (this.#following.has(page)) this.#following.set(page, unsubscribe);
    else unsubscribe();
  }

  /**
   * Where a page that was read anew ends elsewhere, the next one begins there: in a list with the newest first, what
   * came in front pushes rows over the end of a page.
   */
  #join(page: number): void {
    const end = this.#pages[page]?.end ?? null;
    const next = this.#pages[page + 1];
    if (!next || end === null || next.after === end) return;
    next.after = end;
    const stop = this.#following.get(page + 1);
    if (!stop) return;
    stop();
    this.#following.delete(page + 1);
    this.#follow(page + 1);
  }

  #count(from: number): void {
    for (let page = from; page < this.#pages.length; page++) {
      this.#starts[page] = page === 0 ? 0 : (this.#starts[page - 1] ?? 0) + (this.#pages[page - 1]?.rows.length ?? 0);
    }
  }

  #pageOf(index: number): number {
    let low = 0;
    let high = this.#pages.length - 1;
    while (low < high) {
      const middle = Math.ceil((low + high) / 2);
      if ((this.#starts[middle] ?? 0) <= index) low = middle;
      else high = middle - 1;
    }
    return Math.max(low, 0);
  }
}

export function usePages<Result, Row>(
  document: TypedDocument<Result, never>,
  variables: object,
  connection: (result: Result) => Connection<Row> | null | undefined,
  keep: ((row: Row) => boolean) | undefined,
  known: boolean,
) {
  const client = useClient();
  const [, changed] = useReducer((count: number) => count + 1, 0);
  const text = document.toString();
  const identity = JSON.stringify(variables);
  const [functions] = useState(() => ({ connection, keep }));
  functions.connection = connection;
  functions.keep = keep;
  const pages = useMemo(
    () =>
      new Pages<Result, Row>(
        client,
        text,
        JSON.parse(identity) as object,
        (result) => functions.connection(result),
        keep ? (row) => functions.keep?.(row) ?? true : undefined,
        known,
        changed,
      ),
    [client, text, identity, functions, known],
  );
  useEffect(() => {
    pages.see(0, 0);
    return () => pages.stop();
  }, [pages]);
  const see = useCallback((first: number, last: number) => pages.see(first, last), [pages]);
  const retry = useCallback(() => pages.retry(), [pages]);
  const rest = { count: pages.count, more: pages.more, row: (index: number) => pages.row(index), see, retry };
  if (pages.fault && !pages.loaded) return { ...rest, state: 'failed' as const, fault: pages.fault };
  return { ...rest, state: pages.loaded ? ('ready' as const) : ('loading' as const) };
}
