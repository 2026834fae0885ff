import { useCallback, useEffect, useRef, useState } from 'react';
import type { Fault } from '@tenancy/client';
import { useClient } from 'urql';
import { faultOf } from '../../api/hooks.ts';
import { type AccessKind, AccessTrailDocument, type AccessTrailQuery } from '../../generated/graphql.ts';
import { Button } from '../../parts/Button.tsx';
import { Choice } from '../../parts/Choice.tsx';
import { Filters } from '../../parts/Filters.tsx';
import { newestFirst } from '../../parts/newest.ts';
import { Badge, Notice, type Tone } from '../../parts/Notice.tsx';
import { Page } from '../../parts/Page.tsx';
import { type Column, PagedList } from '../../parts/PagedList.tsx';
import parts from '../../parts/parts.module.css';
import { Empty, Failed, Skeleton } from '../../parts/States.tsx';
import { Number, Time } from '../../parts/Values.tsx';
import { useOrganization } from '../../shell/standing.tsx';
import { useText } from '../../texts/texts.tsx';
import css from './access.module.css';

const KINDS: readonly AccessKind[] = ['REFUSED', 'OPERATOR_READ', 'AUDIT_READ', 'AUDIT_EXPORT'];
const TONES: Record<AccessKind, Tone> = { REFUSED: 'bad', OPERATOR_READ: 'operator', AUDIT_READ: 'plain', AUDIT_EXPORT: 'accent' };
const CALLERS = ['UserActor', 'OperatorActor', 'TokenActor', 'SystemActor'] as const;

type Trail = NonNullable<NonNullable<AccessTrailQuery['organization']>['accessTrail']>;
type Row = Trail['edges'][number]['node'] & { id: string };
interface Filter {
  kind: AccessKind | 'ALL';
  caller: (typeof CALLERS)[number] | 'ALL';
}

function connectionOf({ organization }: AccessTrailQuery) {
  const trail = organization?.accessTrail;
  return trail
    ? newestFirst<Row>({ pageInfo: trail.pageInfo, nodes: trail.edges.map(({ cursor, node }) => ({ ...node, id: cursor })) })
    : null;
}

export default function Access() {
  const t = useText();
  const { id: organizationId } = useOrganization();
  const [filter, setFilter] = useState<Filter>({ kind: 'ALL', caller: 'ALL' });
  const filtered = filter.kind !== 'ALL' || filter.caller !== 'ALL';
  const columns = useColumns();
  return (
    <Page title={t('access.title')} text={t('access.text')}>
      <Filters>
        <Choice
          label={t('access.kind')}
          value={filter.kind}
          onChange={(kind) => setFilter({ ...filter, kind })}
          options={(['ALL', ...KINDS] as const).map((value) => ({ value, text: t(`access.kinds.${value}`) }))}
        />
        <Choice
          label={t('access.caller')}
          value={filter.caller}
          onChange={(caller) => setFilter({ ...filter, caller })}
          options={(['ALL', ...CALLERS] as const).map((value) => ({ value, text: t(`access.callers.${value}`) }))}
        />
      </Filters>
      {filtered ? (
        <Search key={JSON.stringify(filter)} organizationId={organizationId} filter={filter} columns={columns} />
      ) : (
        <PagedList
          label={t('access.title')}
          document={AccessTrailDocument}
          variables={{ organizationId }}
          connection={connectionOf}
          empty={<Empty title={t('access.empty')}>{t('access.empty.text')}</Empty>}
          columns={columns}
        />
      )}
    </Page>
  );
}

function useColumns(): readonly Column<Row>[] {
  const t = useText();
  return [
    {
      id: 'caller',
      title: t('access.caller'),
      width: 'minmax(0, 1.4fr)',
      cell: ({ actor, ip }) => (
        <span className={parts.main}>
          {actor.label}
          <span className={parts.sub}>
            {t(`access.callers.${actor.__typename}`)}
            {ip ? ` · ${ip}` : ''}
          </span>
        </span>
      ),
    },
    { id: 'kind', title: t('access.kind'), width: 'minmax(0, 1.2fr)', cell: ({ kind }) => <Badge tone={TONES[kind]}>{t(`access.kinds.${kind}`)}</Badge> },
    {
      id: 'operation',
      title: t('access.operation'),
      width: 'minmax(0, 1.8fr)',
      cell: ({ operation, targetId }) => (
        <span>
          <code className={css.code}>{operation}</code>
          {targetId ? <span className={parts.sub}> {targetId}</span> : null}
        </span>
      ),
    },
    { id: 'at', title: t('access.at'), cell: ({ at }) => <Time at={at} /> },
    { id: 'times', title: t('access.times'), width: '4rem', cell: ({ times }) => <Number value={times} /> },
  ];
}

const NOTHING = { count: 0, back: null, more: true };
const READ_AT_ONCE = 100;
/** Pages that one press reads at most. */
const PAGES_AT_ONCE = 5;

/** The service does not filter this trail, so the browser searches it, page by page, and says how far it looked. */
function Search({ organizationId, filter, columns }: { organizationId: string; filter: Filter; columns: readonly Column<Row>[] }) {
  const t = useText();
  const client = useClient();
  const [found, setFound] = useState<readonly Row[]>([]);
  const [looked, setLooked] = useState<{ count: number; back: string | null; more: boolean }>(NOTHING);
  const [state, setState] = useState<'busy' | 'ready' | Fault>('busy');
  const after = useRef<string | null>(null);
  const run = useRef(0);
  const goOn = useCallback(async () => {
    const mine = ++run.current;
    setState('busy');
    for (let page = 0; page < PAGES_AT_ONCE; page++) {
      const { data, error } = await client
        .query(AccessTrailDocument.toString(), { organizationId, first: READ_AT_ONCE, after: after.current }, { requestPolicy: 'network-only' })
        .toPromise();
      if (mine !== run.current) return;
      const connection = data ? connectionOf(data as AccessTrailQuery) : null;
      if (!connection) {
        if (error) setState(faultOf(error));
        return;
      }
      after.current = connection.pageInfo.endCursor ?? null;
      const more = connection.pageInfo.hasNextPage && after.current !== null;
      setFound((rows) => [...rows, ...connection.nodes.filter((row) => fits(row, filter))]);
      setLooked(({ count, back }) => ({ count: count + connection.nodes.length, back: connection.nodes.at(-1)?.at ?? back, more }));
      if (!more) break;
    }
    setState('ready');
  }, [client, organizationId, filter]);
  useEffect(() => {
    after.current = null;
    setFound([]);
    setLooked(NOTHING);
    void goOn();
    return () => void run.current++;
  }, [goOn]);

  if (typeof state === 'object') return <Failed fault={state} retry={() => void goOn()} />;
  return (
    <>
      {found.length > 0 ? (
        <div className={parts.list} role="table" aria-label={t('access.title')} style={{ '--columns': columns.map(({ width }) => width ?? 'minmax(0, 1fr)').join(' ') } as object}>
          <div className={parts.listHead} role="row">
            {columns.map(({ id, title }) => (
              <div key={id} role="columnheader" className={parts.listCell}>
                {title}
              </div>
            ))}
          </div>
          {found.map((row) => (
            <div key={row.id} role="row" className={parts.listRow}>
              {columns.map(({ id, title, cell }) => (
                <div key={id} role="cell" className={parts.listCell}>
                  <span className={parts.listCellTitle}>{title}</span>
                  {cell(row)}
                </div>
              ))}
            </div>
          ))}
        </div>
      ) : state === 'busy' ? (
        <div className={`${parts.list} ${parts.cardBody}`} aria-busy="true">
          <Skeleton lines={6} />
        </div>
      ) : (
        <div className={parts.list}>
          <Empty title={t('access.none')} />
        </div>
      )}
      <Notice role="status">
        <p>
          {state === 'busy'
            ? t('access.searching', { count: looked.count })
            : t(looked.more ? 'access.searched.more' : 'access.searched.all', { count: looked.count })}{' '}
          {looked.back && looked.more ? <Time at={looked.back} /> : null}
        </p>
      </Notice>
      {looked.more && state === 'ready' ? <Button onPress={() => void goOn()}>{t('access.goOn')}</Button> : null}
    </>
  );
}

function fits({ kind, actor }: Row, filter: Filter): boolean {
  return (filter.kind === 'ALL' || kind === filter.kind) && (filter.caller === 'ALL' || actor.__typename === filter.caller);
}
