import { useEffect, useMemo, useRef, useState } from 'react';
import { Slider, SliderThumb, SliderTrack } from 'react-aria-components';
import { type Client, Fault } from '@tenancy/client';
import { useApi, useRead } from '../../api/hooks.ts';
import {
  AsOfDocument,
  AsOfFirstDocument,
  type AsOfFirstQuery,
  type SnapshotFragment,
  SnapshotInvitationsDocument,
  SnapshotMembersDocument,
  SnapshotProjectsDocument,
} from '../../generated/graphql.ts';
import { Badge, type Tone } from '../../parts/Notice.tsx';
import { Card, Page } from '../../parts/Page.tsx';
import { Empty, Failed, Show, Skeleton } from '../../parts/States.tsx';
import { Time } from '../../parts/Values.tsx';
import { useOrganization } from '../../shell/standing.tsx';
import { type TextKey, useText, useTextMaybe } from '../../texts/texts.tsx';
import css from './asof.module.css';
import { type Difference, differenceOf, type Section } from './difference.ts';

type Snapshot = SnapshotFragment;
const SECTIONS: readonly Section[] = ['organization', 'limits', 'settings', 'members', 'invitations', 'projects'];
const TONES: Record<Difference['kind'], Tone> = { added: 'good', removed: 'bad', altered: 'accent' };
/** Clocks differ: a time that has not come yet at the service would be refused. */
const BEHIND_MS = 5_000;

export default function AsOf() {
  const t = useText();
  const { id: organizationId } = useOrganization();
  const [now] = useState(() => new Date(Date.now() - BEHIND_MS).toISOString());
  const reading = useRead(AsOfFirstDocument, { organizationId, now });
  return (
    <Page title={t('asof.title')} text={t('asof.text')}>
      <Show reading={reading}>
        {(first) =>
          // The cache knows the organization by the shell, and gives the rest as null until it comes.
          reading.state === 'ready' && reading.refreshing && !(first.organization?.auditTrail && first.from) ? (
            <div aria-busy="true">
              <Skeleton lines={6} />
            </div>
          ) : (
            <Moments first={first} />
          )
        }
      </Show>
    </Page>
  );
}

function Moments({ first }: { first: AsOfFirstQuery }) {
  const t = useText();
  const newest = first.organization?.auditTrail?.nodes[0]?.auditSequence ?? 1;
  const [moments, setMoments] = useState<[number, number]>([1, newest]);
  // While a thumb is dragged nothing is read.
  const [dragged, setDragged] = useState(moments);
  const seeds = [first.from, first.to].filter((snapshot) => snapshot != null);
  const from = useSnapshot(moments[0], seeds);
  const to = useSnapshot(moments[1], seeds);
  const names = useMemo(
    () => new Map(first.organization?.members?.nodes.map(({ user }) => [user.id, user.name ?? user.email ?? user.id])),
    [first],
  );
  const choose = (next: [number, number]) => {
    const [a, b] = next.map((number) => Math.min(Math.max(Math.round(number) || 1, 1), newest)).sort((x, y) => x - y) as [number, number];
    setDragged([a, b]);
    setMoments([a, b]);
  };
  const failed = [from, to].find(({ fault }) => fault);
  return (
    <>
      <Card title={t('asof.moments')}>
        <Slider
          className={css.slider!}
          aria-label={t('asof.slider')}
          minValue={1}
          maxValue={Math.max(newest, 2)}
          value={dragged}
          onChange={(value) => setDragged(value as [number, number])}
          onChangeEnd={(value) => choose(value as [number, number])}
        >
          <SliderTrack className={css.track!}>
            {([0, 1] as const).map((thumb) => (
              <SliderThumb key={thumb} index={thumb} className={css.thumb!} aria-label={t(thumb === 0 ? 'asof.earlier' : 'asof.later')} />
            ))}
          </SliderTrack>
        </Slider>
        <div className={css.ends}>
          {([from, to] as const).map(({ snapshot }, end) => (
            <p key={end}>
              <strong>{t('asof.at', { number: dragged[end] ?? 1 })}</strong>{' '}
              {snapshot && snapshot.auditSequence === dragged[end] ? <Time at={snapshot.recordedAt} /> : '…'}
            </p>
          ))}
        </div>
      </Card>
      {failed?.fault ? <Failed fault={failed.fault} /> : null}
      {from.snapshot && to.snapshot ? (
        <>
          <Changes from={from.snapshot} to={to.snapshot} names={names} />
          <State snapshot={to.snapshot} names={names} />
          <p className={css.note}>{t('asof.names')}</p>
        </>
      ) : failed ? null : (
        <div aria-busy="true">
          <Skeleton lines={6} />
        </div>
      )}
    </>
  );
}

/** The snapshot after an event, whole. It stays the same for ever, so each is read once. */
function useSnapshot(number: number, seeds: readonly Snapshot[]): { snapshot: Snapshot | null; fault: Fault | null } {
  const { client } = useApi();
  const { id } = useOrganization();
  const known = useRef(new Map<number, Snapshot>());
  const [state, setState] = useState<{ number: number; snapshot: Snapshot | null; fault: Fault | null } | null>(null);
  const seed = seeds.find(({ auditSequence }) => auditSequence === number);
  useEffect(() => {
    let current = true;
    const give = (snapshot: Snapshot | null, fault: Fault | null) => current && setState({ number, snapshot, fault });
    const had = known.current.get(number) ?? (seed && isWhole(seed) ? seed : undefined);
    if (had) give(had, null);
    else {
      wholeSnapshot(client, id, number).then(
        (snapshot) => {
          if (snapshot) known.current.set(number, snapshot);
          give(snapshot, snapshot ? null : new Fault('NOT_FOUND', 'there is no such moment'));
        },
        (error: unknown) => give(null, error instanceof Fault ? error : new Fault('INTERNAL', String(error))),
      );
    }
    return () => {
      current = false;
    };
  }, [client, id, number, seed]);
  if (state?.number === number) return state;
  // What is on the screen stays while the next moment is read.
  return { snapshot: state?.snapshot ?? null, fault: null };
}

const isWhole = ({ members, invitations, projects }: Snapshot) =>
  ![members, invitations, projects].some(({ pageInfo }) => pageInfo.hasNextPage);

async function wholeSnapshot(client: Client, organizationId: string, auditSequence: number): Promise<Snapshot | null> {
  const asOf = { auditSequence };
  const { organizationAsOf: snapshot } = await client.query(AsOfDocument, { organizationId, asOf });
  if (!snapshot) return null;
  const rest = async <Page extends { nodes: readonly unknown[]; pageInfo: { hasNextPage: boolean; endCursor?: string | null } }>(
    page: Page,
    next: (after: string | null | undefined) => Promise<Page | undefined>,
  ): Promise<Page> => {
    const nodes = [...page.nodes];
    let last = page;
    while (last.pageInfo.hasNextPage) {
      const more = await next(last.pageInfo.endCursor);
      if (!more) break;
      nodes.push(...more.nodes);
      last = more;
    }
    return { ...page, nodes, pageInfo: last.pageInfo };
  };
  const of = (after: string | null | undefined) => ({ organizationId, asOf, after: after ?? null });
  return {
    ...snapshot,
    members: await rest(snapshot.members, async (after) => (await client.query(SnapshotMembersDocument, of(after))).organizationAsOf?.members),
    invitations: await rest(snapshot.invitations, async (after) => (await client.query(SnapshotInvitationsDocument, of(after))).organizationAsOf?.invitations),
    projects: await rest(snapshot.projects, async (after) => (await client.query(SnapshotProjectsDocument, of(after))).organizationAsOf?.projects),
  };
}

type Names = ReadonlyMap<string, string>;

/** How a thing is called: by the later snapshot, and by the earlier one where it is gone. */
function nameOf(section: Section, id: string, snapshots: readonly Snapshot[], names: Names): string {
  for (const { name, members, invitations, projects } of snapshots) {
    if (section === 'organization') return name;
    const member = section === 'members' && members.nodes.find(({ userId }) => userId === id);
    if (member) return names.get(id) ?? id;
    const invitation = section === 'invitations' && invitations.nodes.find(({ invitationId }) => invitationId === id);
    if (invitation) return invitation.email ?? id;
    const project = section === 'projects' && projects.nodes.find(({ projectId }) => projectId === id);
    if (project) return project.name;
  }
  return id;
}

function Changes({ from, to, names }: { from: Snapshot; to: Snapshot; names: Names }) {
  const t = useText();
  const tm = useTextMaybe();
  const differences = useMemo(() => differenceOf(from, to), [from, to]);
  return (
    <Card title={t('asof.changed')} text={t('asof.changed.text', { from: from.auditSequence, to: to.auditSequence })}>
      {differences.length === 0 ? <Empty title={t('asof.nothing')} /> : null}
      {SECTIONS.map((section) => {
        const here = differences.filter((difference) => difference.section === section);
        return here.length > 0 ? (
          <section key={section} className={css.section} aria-label={t(`asof.${section}`)}>
            <h3>{t(`asof.${section}`)}</h3>
            <ul className={css.rows}>
              {here.map(({ id, kind, fields }) => {
                const name = nameOf(section, id, [to, from], names);
                return (
                  <li key={id}>
                    <Badge tone={TONES[kind]}>{t(`asof.${kind}`)}</Badge>
                    <div>
                      {fields.length === 0 ? name : null}
                      {fields.map((change) => (
                        <div key={change.field}>
                          {t('asof.change', {
                            name,
                            field: t(`asof.field.${change.field}` as TextKey),
                            // Verification and lifecycle have texts; the rest is as it is written.
                            from: tm(`${change.field}.${change.from}`, change.from),
                            to: tm(`${change.field}.${change.to}`, change.to),
                          })}
                        </div>
                      ))}
                    </div>
                  </li>
                );
              })}
            </ul>
          </section>
        ) : null;
      })}
    </Card>
  );
}

function State({ snapshot, names }: { snapshot: Snapshot; names: Names }) {
  const t = useText();
  const { name, slug, plan, lifecycle, verification, members, invitations, projects } = snapshot;
  const lists: [Section, { id: string; text: string; state: string }[]][] = [
    ['members', members.nodes.map(({ userId, roles, state }) => ({ id: userId, text: `${names.get(userId) ?? userId} · ${roles.join(', ')}`, state }))],
    ['invitations', invitations.nodes.map(({ invitationId, email, roles, state }) => ({ id: invitationId, text: `${email ?? invitationId} · ${roles.join(', ')}`, state }))],
    ['projects', projects.nodes.map(({ projectId, name: called, state }) => ({ id: projectId, text: called, state }))],
  ];
  return (
    <Card title={t('asof.state', { number: snapshot.auditSequence })}>
      <p className={css.facts}>
        <strong>{name}</strong> · {slug} · {plan} · {t(`lifecycle.${lifecycle}`)} · {t(`verification.${verification}`)}
      </p>
      {lists.map(([section, rows]) => (
        <details key={section} className={css.section}>
          <summary>
            {t(`asof.${section}`)} ({rows.length})
          </summary>
          {rows.length === 0 ? <p className={css.note}>{t('asof.none')}</p> : null}
          <ul className={css.long}>
            {rows.map(({ id, text, state }) => (
              <li key={id}>
                <span>{text}</span> <span className={css.note}>{state}</span>
              </li>
            ))}
          </ul>
        </details>
      ))}
    </Card>
  );
}
