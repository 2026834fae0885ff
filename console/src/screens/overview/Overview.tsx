import { Check, Circle, CircleCheck, Minus } from 'lucide-react';
import { useIntl } from 'react-intl';
import { useCommand, useRead } from '../../api/hooks.ts';
import { type OrganizationCapability, OverviewDocument, type OverviewQuery, SubmitForVerificationDocument } from '../../generated/graphql.ts';
import { PermissionButton } from '../../parts/Button.tsx';
import { Chart } from '../../parts/Chart.tsx';
import { FormDialog, useDialog } from '../../parts/Dialogs.tsx';
import { EventList } from '../../parts/Event.tsx';
import { Badge, Notice } from '../../parts/Notice.tsx';
import { Card, Page } from '../../parts/Page.tsx';
import { Empty, Show, Skeleton } from '../../parts/States.tsx';
import { toast } from '../../parts/Toasts.tsx';
import { Meter, Time } from '../../parts/Values.tsx';
import { statusKey, useOrganization } from '../../shell/standing.tsx';
import { toneOf } from '../../shell/tones.ts';
import { type TextKey, useText, useTextMaybe } from '../../texts/texts.tsx';
import css from './overview.module.css';

type Organization = NonNullable<OverviewQuery['organization']>;

const CAPABILITIES: readonly OrganizationCapability[] = [
  'USE_RESOURCES',
  'CREATE_RESOURCES',
  'CHANGE_RESOURCES',
  'ADD_MEMBERS',
  'ACCEPT_INVITATIONS',
  'REMOVE_MEMBERS',
  'EDIT_PROFILE',
  'SUBMIT_FOR_VERIFICATION',
  'LEAVE',
  'DELETE',
  'RESTORE',
];

/** These are for moments: that a verified organization cannot be submitted again is no lack. */
const OF_MOMENTS: readonly OrganizationCapability[] = ['SUBMIT_FOR_VERIFICATION', 'RESTORE'];

export default function Overview() {
  const t = useText();
  const { id, name } = useOrganization();
  const reading = useRead(OverviewDocument, { organizationId: id });
  const dialog = useDialog();
  const submit = useCommand(SubmitForVerificationDocument);
  return (
    <Page
      title={name}
      text={t('overview.text')}
      actions={
        reading.data?.organization?.capabilities.includes('SUBMIT_FOR_VERIFICATION') ? (
          <PermissionButton
            look="primary"
            need={{ permission: 'organization:submit', capability: 'SUBMIT_FOR_VERIFICATION' }}
            onPress={() => dialog.open('submit', null)}
          >
            {t('overview.submit')}
          </PermissionButton>
        ) : null
      }
    >
      <Show reading={reading} skeleton={<Waiting />}>
        {({ organization }) => (organization ? <Content organization={organization} /> : null)}
      </Show>
      {dialog.of('submit') ? (
        <FormDialog
          title={t('overview.submit')}
          text={t('overview.submit.text')}
          action={t('overview.submit.act')}
          command={submit}
          close={dialog.close}
          act={async ({ reason }) => {
            const outcome = await submit.run({ organizationId: id, reason });
            if (outcome?.done) toast(t('overview.submit.done'));
            return outcome?.done ?? false;
          }}
        />
      ) : null}
    </Page>
  );
}

function Content({ organization }: { organization: Organization }) {
  const t = useText();
  const maybe = useTextMaybe();
  const events = [...(organization.auditTrail?.nodes ?? [])].reverse();
  return (
    <>
      <Status organization={organization} />
      <div className={css.grid}>
        <Card title={t('overview.limits')} text={t('overview.plan', { plan: organization.plan })}>
          <div className={css.meters}>
            {organization.limits.map(({ name, used, maximum }) => (
              <Meter key={name} label={maybe(`limit.${name}`, name)} used={used} maximum={maximum} />
            ))}
          </div>
        </Card>
        <Checklist organization={organization} />
        <Card title={t('overview.capabilities')} text={t('overview.capabilities.text')}>
          <Capabilities organization={organization} />
        </Card>
        <Card title={t('overview.events')}>
          {events.length > 0 ? <EventList events={events} /> : <Empty title={t('overview.events.none')}>{t('overview.events.none.text')}</Empty>}
        </Card>
      </div>
      {organization.activity ? <Activity days={organization.activity} /> : null}
    </>
  );
}

/** Events by day, for those who may read the audit trail. A day is one of UTC. */
function Activity({ days }: { days: NonNullable<Organization['activity']> }) {
  const t = useText();
  const intl = useIntl();
  const day = (at: string, month: 'short' | 'long') => intl.formatDate(at, { day: 'numeric', month, timeZone: 'UTC' });
  const count = days.reduce((sum, { events }) => sum + events, 0);
  const busiest = days.reduce((most, one) => (one.events > most.events ? one : most), days[0] ?? { since: '', events: 0 });
  return (
    <Card title={t('overview.activity')} text={t('overview.activity.text')}>
      <Chart
        says={t('overview.activity.says', { count, days: days.length, day: count > 0 ? day(busiest.since, 'long') : '', most: busiest.events })}
        along={t('overview.activity.day')}
        aboveTitle={t('overview.activity.events')}
        bars={days.map(({ since, events }) => ({ title: day(since, 'long'), tick: day(since, 'short'), above: events }))}
      />
    </Card>
  );
}

function Status({ organization }: { organization: Organization }) {
  const t = useText();
  const key = statusKey(organization);
  const tone = toneOf(organization);
  return (
    <Card title={t('overview.status')} actions={<Badge tone={tone}>{t(key)}</Badge>}>
      <p className={css.say}>{t(`overview.${key}` as TextKey)}</p>
      {organization.verificationReason && organization.verification !== 'VERIFIED' ? (
        <div className={css.because}>
          <Notice tone={tone === 'bad' ? 'bad' : 'plain'}>
            <p>{t('overview.because', { reason: organization.verificationReason })}</p>
          </Notice>
        </div>
      ) : null}
      <dl className={css.facts}>
        <div>
          <dt>{t('overview.slug')}</dt>
          <dd>
            <code>{organization.slug}</code>
          </dd>
        </div>
        <div>
          <dt>{t('overview.created')}</dt>
          <dd>
            <Time at={organization.createdAt} withTime={false} />
          </dd>
        </div>
        <div>
          <dt>{t('overview.contact')}</dt>
          <dd>{organization.contactEmail ?? t('overview.contact.none')}</dd>
        </div>
        {organization.purgeAt ? (
          <div>
            <dt>{t('overview.purgeAt')}</dt>
            <dd>
              <Time at={organization.purgeAt} />
            </dd>
          </div>
        ) : null}
      </dl>
    </Card>
  );
}

function Capabilities({ organization }: { organization: Organization }) {
  const t = useText();
  const shown = CAPABILITIES.filter((one) => organization.capabilities.includes(one) || !OF_MOMENTS.includes(one));
  return (
    <ul className={css.capabilities}>
      {shown.map((one) => {
        const allowed = organization.capabilities.includes(one);
        return (
          <li key={one} data-allowed={allowed}>
            {allowed ? <Check size={16} aria-hidden /> : <Minus size={16} aria-hidden />}
            <span>
              {t(`capability.${one}`)}
              <span className="hidden-text">: {t(allowed ? 'act.allowed' : 'act.notAllowed')}</span>
              {allowed ? null : <span className={css.why}>{t('may.capability', { status: t(statusKey(organization)) })}</span>}
            </span>
          </li>
        );
      })}
    </ul>
  );
}

/** What a new organization lacks. It is gone once nothing is open. */
function Checklist({ organization }: { organization: Organization }) {
  const t = useText();
  const has = (connection: { nodes: readonly unknown[] } | null, count = 1) => (connection?.nodes.length ?? 0) >= count;
  // A list that the caller may not see says nothing about what is missing.
  const steps: [TextKey, boolean][] = [
    ['overview.step.contact', organization.contactEmail !== null],
    ['overview.step.submit', organization.verification !== 'IN_SETUP'],
    ['overview.step.verified', organization.verification === 'VERIFIED'],
    ...(organization.members ? [['overview.step.members', has(organization.members, 2) || has(organization.invitations)] as [TextKey, boolean]] : []),
    ...(organization.projects ? [['overview.step.project', has(organization.projects)] as [TextKey, boolean]] : []),
    ...(organization.webhookEndpoints ? [['overview.step.webhook', has(organization.webhookEndpoints)] as [TextKey, boolean]] : []),
  ];
  const done = steps.filter(([, done]) => done).length;
  return (
    <Card title={t('overview.checklist')} text={t('overview.checklist.done', { done, all: steps.length })}>
      <ul className={css.steps}>
        {steps.map(([key, done]) => (
          <li key={key} data-done={done}>
            {done ? <CircleCheck size={16} aria-hidden /> : <Circle size={16} aria-hidden />}
            {t(key)}
            <span className="hidden-text">{t(done ? 'overview.step.done' : 'overview.step.open')}</span>
          </li>
        ))}
      </ul>
    </Card>
  );
}

function Waiting() {
  const t = useText();
  return (
    <div className={css.grid}>
      {(['overview.status', 'overview.limits', 'overview.capabilities', 'overview.events'] as const).map((key) => (
        <Card key={key} title={t(key)}>
          <Skeleton lines={4} />
        </Card>
      ))}
    </div>
  );
}
