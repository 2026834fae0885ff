import { describe, expect, it } from 'vitest';
import { type Connection, PAGE_SIZE, Pages } from './pages.ts';

interface Row {
  id: string;
}

/** A service with so many rows, that answers at once. */
function service(count: number, known = false) {
  const asked: (string | null)[] = [];
  const policies: string[] = [];
  const open = new Set<string | null>();
  const client = {
    query: (_document: string, { after }: { after: string | null }, { requestPolicy }: { requestPolicy: string }) => ({
      subscribe: (tell: (result: { data: Connection<Row> }) => void) => {
        asked.push(after);
        policies.push(requestPolicy);
        open.add(after);
        const first = after === null ? 0 : Number(after) + 1;
        const last = Math.min(first + PAGE_SIZE, count) - 1;
        tell({
          data: {
            nodes: Array.from({ length: last - first + 1 }, (_, index) => ({ id: `row-${first + index}` })),
            pageInfo: { hasNextPage: last < count - 1, endCursor: String(last) },
          },
        });
        return { unsubscribe: () => open.delete(after) };
      },
    }),
  };
  const pages = new Pages<Connection<Row>, Row>(client as never, '', {}, (data) => data, undefined, known, () => undefined);
  return { pages, asked, policies, open };
}

describe('pages', () => {
  it('reads the first page, and the next when the end is near', () => {
    const { pages, asked } = service(120);
    pages.see(0, 0);
    expect([pages.count, pages.more]).toEqual([50, true]);
    pages.see(10, 30);
    expect(pages.count).toBe(100);
    pages.see(60, 90);
    expect([pages.count, pages.more]).toEqual([120, false]);
    expect(asked).toEqual([null, '49', '99']);
    expect(pages.row(119)?.id).toBe('row-119');
    expect(pages.row(120)).toBeUndefined();
  });

  it('leaves the first page to a screen that reads it itself', () => {
    for (const [known, first] of [
      [true, 'cache-first'],
      [false, 'cache-and-network'],
    ] as const) {
      const { pages, policies } = service(120, known);
      pages.see(0, 0);
      pages.see(30, 49);
      expect(policies).toEqual([first, 'cache-and-network']);
    }
  });

  it('follows only the pages that are near', () => {
    const { pages, open } = service(1_000);
    for (let row = 0; row < 1_000; row += 20) pages.see(row, row + 20);
    expect(open.size).toBeLessThanOrEqual(4);
    pages.see(0, 20);
    expect(open.has(null)).toBe(true);
  });

  it('asks for each page of a hundred thousand rows once on the way to the end', () => {
    const { pages, asked, open } = service(100_000);
    for (let row = 0; row < 100_000; row += 20) pages.see(row, row + 20);
    expect(pages.count).toBe(100_000);
    expect(pages.row(99_999)?.id).toBe('row-99999');
    expect(asked.length).toBe(100_000 / PAGE_SIZE);
    expect(open.size).toBeLessThanOrEqual(4);
  });
});
