import { useWindowVirtualizer } from '@tanstack/react-virtual';
import {
  type CSSProperties,
  type FocusEvent,
  type KeyboardEvent,
  memo,
  type MouseEvent,
  type ReactNode,
  type RefObject,
  useEffect,
  useId,
  useLayoutEffect,
  useRef,
  useState,
} from 'react';
import type { TypedDocument } from '@tenancy/client';
import { useText } from '../texts/texts.tsx';
import { afterDialog } from './Dialogs.tsx';
import { type Connection, usePages } from './pages.ts';
import css from './parts.module.css';
import { Failed, Skeleton } from './States.tsx';

export interface Column<Row> {
  id: string;
  title: string;
  /** A track of CSS grid; `minmax(0, 1fr)` by default. On narrow screens cells stand one below another. */
  width?: string;
  /** The last column with a row's actions: `end`. */
  align?: 'end';
  /** The list is in its order. */
  sorted?: boolean;
  cell: (row: Row) => ReactNode;
}

/** What happens in rows. It stays the same object while one scrolls, so that rows which stay are not drawn again. */
interface Acts<Row> {
  focus: (row: Row | undefined, index: number) => void;
  blur: (event: FocusEvent<HTMLElement>) => void;
  press: (event: KeyboardEvent<HTMLElement>, index: number) => void;
  click: (event: MouseEvent<HTMLElement>, row: Row | undefined) => void;
}

function PlainListRow<Row extends { id: string }>({
  row,
  index,
  top,
  columns,
  entered,
  openable,
  measure,
  acts,
}: {
  row: Row | undefined;
  index: number;
  /** Where it is drawn, in px from the top of the list. */
  top: number;
  columns: readonly Column<Row>[];
  /** The Tab key enters the list at this row. */
  entered: boolean;
  openable: boolean;
  measure: (element: HTMLElement | null) => void;
  acts: RefObject<Acts<Row>>;
}) {
  const t = useText();
  const place: CSSProperties = { position: 'absolute', top: 0, left: 0, width: '100%', transform: `translateY(${top}px)` };
  return (
    <div
      ref={measure}
      data-index={index}
      className={css.listRow}
      style={place}
      role="row"
      aria-rowindex={index + 2}
      tabIndex={entered ? 0 : -1}
      data-openable={openable || undefined}
      onFocus={() => acts.current.focus(row, index)}
      onBlur={(event) => acts.current.blur(event)}
      onKeyDown={(event) => acts.current.press(event, index)}
      onClick={(event) => acts.current.click(event, row)}
    >
      {row ? (
        columns.map(({ id, title, align, cell }) => (
          <div key={id} role="gridcell" className={css.listCell} data-align={align}>
            {align ? null : <span className={css.listCellTitle}>{title}</span>}
            {cell(row)}
          </div>
        ))
      ) : (
        <div role="gridcell" className={css.listCell}>
          <span className={css.sub}>{t('list.loading')}</span>
        </div>
      )}
    </div>
  );
}
const ListRow = memo(PlainListRow) as typeof PlainListRow;

/**
 * An endless list over a connection. It reads pages while one scrolls, draws only the rows that are seen, and follows
 * the cache for the pages that are near. A grid by the ARIA pattern: the arrow keys move by row, Enter opens, Tab
 * reaches what is in the row.
 */
export function PagedList<Result, Variables extends { first: number; after?: string | null }, Row extends { id: string }>({
  label,
  document,
  variables,
  connection,
  columns,
  empty,
  keep,
  known = false,
  onOpen,
}: {
  label: string;
  document: TypedDocument<Result, Variables>;
  /** All variables but `first` and `after`. Other variables are another list, from its beginning. */
  variables: Omit<Variables, 'first' | 'after'>;
  connection: (result: Result) => Connection<Row> | null | undefined;
  columns: readonly Column<Row>[];
  /** Shown instead of a list without rows. */
  empty: ReactNode;
  /** Leaves out rows that a command has just taken out of the list, until the page is read anew. */
  keep?: (row: Row) => boolean;
  /** The screen reads the first page itself, by the same document and variables. */
  known?: boolean;
  onOpen?: (row: Row) => void;
}) {
  const t = useText();
  const keysId = useId();
  const list = useRef<HTMLDivElement>(null);
  const [offset, setOffset] = useState(0);
  const [active, setActive] = useState(0);
  const pages = usePages(document, variables, connection, keep, known);
  const count = pages.count + (pages.more ? 1 : 0);
  const virtualizer = useWindowVirtualizer({
    count,
    estimateSize: () => 56,
    overscan: 8,
    scrollMargin: offset,
    getItemKey: (index) => pages.row(index)?.id ?? `place-${index}`,
  });
  const items = virtualizer.getVirtualItems();
  const first = items[0]?.index ?? 0;
  const last = items.at(-1)?.index ?? 0;

  useLayoutEffect(() => {
    if (list.current) setOffset(list.current.getBoundingClientRect().top + window.scrollY);
  }, [pages.state]);
  useEffect(() => pages.see(first, last), [pages.see, first, last, pages.count]);

  const focusRow = (index: number) => {
    // Without a row the page has it.
    if (pages.count === 0) return window.document.getElementById('main')?.focus({ preventScroll: true });
    const next = Math.max(0, Math.min(index, pages.count - 1));
    setActive(next);
    virtualizer.scrollToIndex(next);
    // The row may have to be drawn first.
    const attempt = (times: number) => {
      const row = list.current?.querySelector<HTMLElement>(`[data-index="${next}"]`);
      if (row) row.focus({ preventScroll: true });
      else if (times > 0) requestAnimationFrame(() => attempt(times - 1));
    };
    requestAnimationFrame(() => attempt(10));
  };

  // The row with the focus may go, or the one that a dialog would give it back to. Then its neighbour takes it.
  const held = useRef<string | null>(null);
  const before = useRef(0);
  useEffect(() => {
    const fewer = pages.count < before.current;
    before.current = pages.count;
    if (!fewer || !held.current || pages.row(active)?.id === held.current) return;
    held.current = null;
    afterDialog(() => {
      const { activeElement, body } = window.document;
      if (activeElement === body) focusRow(active);
    });
  }, [pages.count]);
  const onBlur = (event: FocusEvent<HTMLElement>) => {
    // What hangs at a row, a menu for example, is inside it for React only.
    if (!event.currentTarget.contains(event.target)) return;
    const to = event.relatedTarget as Element | null;
    if (!to?.closest('[role="row"], [role="menu"], [role="dialog"], [role="alertdialog"]')) held.current = null;
  };

  const onKeyDown = (event: KeyboardEvent<HTMLElement>, index: number) => {
    if (event.defaultPrevented || event.altKey || event.metaKey || event.ctrlKey) return;
    const onRow = event.target === event.currentTarget;
    const step = { ArrowDown: 1, ArrowUp: -1, PageDown: 10, PageUp: -10, Home: -Infinity, End: Infinity }[event.key];
    if (onRow && step !== undefined) {
      event.preventDefault();
      focusRow(index + step);
    } else if (onRow && event.key === 'Enter') {
      event.preventDefault();
      const row = pages.row(index);
      if (row && onOpen) onOpen(row);
      else event.currentTarget.querySelector<HTMLElement>('button, a')?.focus();
    } else if (!onRow && event.key === 'Escape') {
      event.currentTarget.focus();
    }
  };
  const now: Acts<Row> = {
    focus: (row, index) => {
      setActive(index);
      held.current = row?.id ?? null;
    },
    blur: onBlur,
    press: onKeyDown,
    click: (event, row) => {
      if (row && onOpen && !(event.target as Element).closest('button, a, input')) onOpen(row);
    },
  };
  const acts = useRef(now);
  useLayoutEffect(() => {
    acts.current = now;
  });

  if (pages.state === 'failed') return <Failed fault={pages.fault} retry={pages.retry} />;
  if (pages.state === 'loading') {
    return (
      <div className={`${css.list} ${css.cardBody}`} aria-busy="true">
        <Skeleton lines={6} />
      </div>
    );
  }
  if (pages.count === 0 && !pages.more) return <div className={css.list}>{empty}</div>;

  const tracks = { '--columns': columns.map(({ width }) => width ?? 'minmax(0, 1fr)').join(' ') } as CSSProperties;
  return (
    <div>
      <div
        className={css.list}
        style={tracks}
        role="grid"
        aria-label={label}
        aria-describedby={keysId}
        aria-rowcount={pages.more ? -1 : pages.count + 1}
        aria-colcount={columns.length}
      >
        <div role="rowgroup">
          <div className={css.listHead} role="row" aria-rowindex={1}>
            {columns.map(({ id, title, align, sorted }) => (
              <div key={id} role="columnheader" className={css.listCell} data-align={align} aria-sort={sorted ? 'ascending' : undefined}>
                {align ? <span className="hidden-text">{title}</span> : title}
              </div>
            ))}
          </div>
        </div>
        <div ref={list} className={css.listBody} role="rowgroup" style={{ height: virtualizer.getTotalSize() }}>
          {items.map(({ index, key, start }) => (
            <ListRow
              key={key}
              row={pages.row(index)}
              index={index}
              top={start - offset}
              columns={columns}
              entered={index === Math.min(active, pages.count - 1)}
              openable={Boolean(onOpen)}
              measure={virtualizer.measureElement}
              acts={acts}
            />
          ))}
        </div>
      </div>
      <p id={keysId} className="hidden-text">
        {t('list.keys')}
      </p>
      <p className="hidden-text" role="status">
        {pages.more ? '' : t('list.end', { count: pages.count })}
      </p>
    </div>
  );
}
