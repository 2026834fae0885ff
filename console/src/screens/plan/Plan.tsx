import { useRead } from '../../api/hooks.ts';
import { PlanAndLimitsDocument, type PlanAndLimitsQuery } from '../../generated/graphql.ts';
import { EventList } from '../../parts/Event.tsx';
import { Badge, Notice } from '../../parts/Notice.tsx';
import { Card, Page } from '../../parts/Page.tsx';
import { Empty, Show } from '../../parts/States.tsx';
import { Meter, Time } from '../../parts/Values.tsx';
import { useOrganization } from '../../shell/standing.tsx';
import { useText, useTextMaybe } from '../../texts/texts.tsx';
import css from './plan.module.css';

type Organization = NonNullable<PlanAndLimitsQuery['organization']>;
type Limit = Organization['limits'][number];
type SetEvent = Extract<NonNullable<Organization['limitEvents']>['nodes'][number], { __typename: 'OrgLimitSetEvent' }>;

export default function Plan() {
  const t = useText();
  const { id } = useOrganization();
  const reading = useRead(PlanAndLimitsDocument, { organizationId: id });
  return (
    <Page title={t('plan.title')} text={t('plan.text')}>
      <Show reading={reading}>{({ organization }) => (organization ? <Content organization={organization} /> : null)}</Show>
    </Page>
  );
}

const isFull = ({ maximum, used }: Limit) => maximum !== null && used >= maximum;

function Content({ organization: { plan, limits, limitEvents, refusals } }: { organization: Organization }) {
  const t = useText();
  const maybe = useTextMaybe();
  const full = limits.filter(isFull);
  const nameOf = (name: string) => maybe(`limit.${name}`, name);
  const reached = [...(refusals?.nodes ?? [])].reverse();
  return (
    <>
      {full.length > 0 ? (
        <Notice tone="bad">
          <p>{t('plan.full', { limits: full.map(({ name }) => nameOf(name)).join(', ') })}</p>
        </Notice>
      ) : null}
      <Card title={t('plan.limits')} text={t('plan.name', { plan })}>
        <ul className={css.limits}>
          {limits.map((limit) => (
            <li key={limit.name}>
              <Meter label={nameOf(limit.name)} used={limit.used} maximum={limit.maximum} />
              <div className={css.source}>
                <Source limit={limit} events={limitEvents} plan={plan} />
                {isFull(limit) ? <Badge tone="bad">{t('plan.isFull')}</Badge> : null}
                {limit.maximum !== null && limit.maximum > limit.used ? (
                  <span>{t('plan.left', { left: limit.maximum - limit.used })}</span>
                ) : null}
              </div>
            </li>
          ))}
        </ul>
      </Card>
      {refusals ? (
        <Card title={t('plan.reached')} text={t('plan.reached.text')}>
          {reached.length > 0 ? <EventList events={reached} /> : <Empty title={t('plan.reached.none')} />}
        </Card>
      ) : null}
    </>
  );
}

/** Where a maximum comes from: of the last event that set it; without one, of the plan. */
function Source({ limit, events, plan }: { limit: Limit; events: Organization['limitEvents']; plan: string }) {
  const t = useText();
  // Without the permission to read the trail, nobody knows.
  if (!events) return <span>{t('plan.source.unknown')}</span>;
  const set = events.nodes.filter((event): event is SetEvent => event.__typename === 'OrgLimitSetEvent' && event.limit === limit.name).at(-1);
  if (!set || set.fromPlan) return <span>{t('plan.source.plan', { plan })}</span>;
  return (
    <span>
      {t('plan.source.operator', { operator: set.actor.label })} <Time at={set.recordedAt} withTime={false} />
      {set.reason ? `: ${set.reason}` : ''}
    </span>
  );
}
