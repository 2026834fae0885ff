import { useState } from 'react';
import { Link } from 'wouter';
import { useReadAgain } from '../../api/again.ts';
import { useCommand, useRead } from '../../api/hooks.ts';
import {
  ChangeOrganizationPlanDocument,
  OperatedOrganizationDocument,
  type OperatedOrganizationQuery,
  SetExternalIdDocument,
  SetOrganizationLimitDocument,
} from '../../generated/graphql.ts';
import { Button } from '../../parts/Button.tsx';
import { Choice } from '../../parts/Choice.tsx';
import { useDialog } from '../../parts/Dialogs.tsx';
import { EventList } from '../../parts/Event.tsx';
import { Field } from '../../parts/Field.tsx';
import { Badge, Notice } from '../../parts/Notice.tsx';
import { Card, Page } from '../../parts/Page.tsx';
import { ReasonDialog } from '../../parts/ReasonDialog.tsx';
import { Empty, NotFound, Show } from '../../parts/States.tsx';
import { toast } from '../../parts/Toasts.tsx';
import { Meter, Time } from '../../parts/Values.tsx';
import { places } from '../../shell/places.ts';
import { statusKey } from '../../shell/standing.tsx';
import { toneOf } from '../../shell/tones.ts';
import { useText, useTextMaybe } from '../../texts/texts.tsx';
import type { ScreenProps } from '../screen.ts';
import css from './organization.module.css';
import { BACK, HARSH, type Review, reviewsOf, useReviews } from './reviews.ts';

type Operated = NonNullable<OperatedOrganizationQuery['organization']>;
type Limit = Operated['limits'][number];
type Setting = 'maximum' | 'unlimited' | 'fromPlan';

export default function Organization({ params }: ScreenProps) {
  const t = useText();
  const id = params.organizationId ?? '';
  const reading = useRead(OperatedOrganizationDocument, { id });
  return (
    <Page
      title={reading.data?.organization?.name ?? t('organization.title')}
      text={<Link href={places.operate('/organizations')}>{t('organization.all')}</Link>}
    >
      <Notice tone="operator">
        <p>{t('organization.notice')}</p>
      </Notice>
      <Show reading={reading}>
        {({ organization }) => (organization ? <Content organization={organization} /> : <NotFound />)}
      </Show>
    </Page>
  );
}

function Content({ organization }: { organization: Operated }) {
  const t = useText();
  const maybe = useTextMaybe();
  const { id, name, legalHold, version } = organization;
  const again = useReadAgain(OperatedOrganizationDocument, { id });
  const reviews = useReviews();
  const changePlan = useCommand(ChangeOrganizationPlanDocument);
  const setLimit = useCommand(SetOrganizationLimitDocument);
  const setExternalId = useCommand(SetExternalIdDocument);
  const dialog = useDialog<Limit | null>();
  const [setting, setSetting] = useState<Setting>('maximum');
  const [noNumber, setNoNumber] = useState(false);
  const events = [...(organization.auditTrail?.nodes ?? [])].reverse();
  const owners = organization.members?.nodes ?? [];
  const offered = reviewsOf(organization);
  const takingBack = async <Result,>(undone: Promise<Result>) => {
    const outcome = await undone;
    void again();
    return outcome;
  };

  const act = async (what: Review, reason: string) => {
    const outcome = await reviews[what].run({ organizationId: id, reason, expectedVersion: version });
    if (!outcome?.done) return false;
    const back = BACK[what];
    toast(
      t(`organization.${what}.done`, { name }),
      back ? { reason, undo: (reason = '') => takingBack(reviews[back].run({ organizationId: id, reason })) } : {},
    );
    void again();
    return true;
  };
  const closing = (command: { reset: () => void }) => () => {
    command.reset();
    dialog.close();
  };
  const limit = dialog.of('limit')?.subject;

  return (
    <>
      <div className={css.grid}>
        <div className={css.column}>
        <Card
          title={t('organization.status')}
          actions={
            <Badge tone={organization.purged ? 'bad' : toneOf(organization)}>
              {organization.purged ? t('organization.purged') : t(statusKey(organization))}
            </Badge>
          }
        >
          <div className={css.stack}>
            <dl className={css.facts}>
              <div>
                <dt>{t('organization.verification')}</dt>
                <dd>{t(`verification.${organization.verification}`)}</dd>
              </div>
              <div>
                <dt>{t('organization.lifecycle')}</dt>
                <dd>{t(`lifecycle.${organization.lifecycle}`)}</dd>
              </div>
              <div>
                <dt>{t('organization.slug')}</dt>
                <dd>
                  <code>{organization.slug}</code>
                </dd>
              </div>
              <div>
                <dt>{t('organization.created')}</dt>
                <dd>
                  <Time at={organization.createdAt} />
                </dd>
              </div>
              <div>
                <dt>{t('organization.contact')}</dt>
                <dd>{organization.contactEmail ?? '—'}</dd>
              </div>
              {organization.purgeAt ? (
                <div>
                  <dt>{t('organization.purgeAt')}</dt>
                  <dd>
                    <Time at={organization.purgeAt} />
                  </dd>
                </div>
              ) : null}
              <div>
                <dt>{t('organization.id')}</dt>
                <dd>
                  <code>{id}</code>
                </dd>
              </div>
            </dl>
            {organization.verificationReason ? (
              <Notice>
                <p>{t('organization.because', { reason: organization.verificationReason })}</p>
              </Notice>
            ) : null}
            {legalHold ? (
              <Notice tone="operator">
                <p>
                  {t('organization.held', { reason: legalHold.reason })} <Time at={legalHold.since} />
                </p>
              </Notice>
            ) : null}
            <p className={css.links}>
              <Link href={places.organization(id)}>{t('organization.asMember')}</Link>
            </p>
          </div>
        </Card>
        <Card
          title={t('organization.limits')}
          text={t('organization.plan', { plan: organization.plan })}
          actions={
            organization.purged ? null : (
              <Button small onPress={() => dialog.open('plan', null)}>
                {t('organization.plan.change')}
              </Button>
            )
          }
        >
          <div className={css.stack}>
            {organization.limits.map((one) => {
              const label = maybe(`limit.${one.name}`, one.name);
              return (
                <div key={one.name} className={css.limit}>
                  <Meter label={label} used={one.used} maximum={one.maximum} />
                  {organization.purged ? null : (
                    <Button
                      small
                      aria-label={t('organization.limit.of', { limit: label })}
                      onPress={() => {
                        setNoNumber(false);
                        setSetting(one.maximum === null ? 'unlimited' : 'maximum');
                        dialog.open('limit', one);
                      }}
                    >
                      {t('organization.limit.set')}
                    </Button>
                  )}
                </div>
              );
            })}
          </div>
        </Card>
        </div>
        <div className={css.column}>
        <Card title={t('organization.acts')} text={t('organization.acts.text')}>
          {offered.length === 0 ? <p className={css.quiet}>{t('organization.acts.none')}</p> : null}
          <ul className={css.acts}>
            {offered.map((what) => (
              <li key={what}>
                <Button onPress={() => dialog.open(what, null)} aria-describedby={`organization-${what}`}>
                  {t(`organization.${what}`)}
                </Button>
                <span id={`organization-${what}`} className={css.quiet}>
                  {t(`organization.${what}.text`)}
                </span>
              </li>
            ))}
          </ul>
        </Card>
        <Card title={t('organization.people')}>
          <div className={css.stack}>
            <ul className={css.owners}>
              {owners.map(({ id: membership, user }) => (
                <li key={membership}>
                  <Link href={places.operate(`/users/${user.id}`)}>{user.name ?? user.email ?? user.id}</Link>
                  {user.name && user.email ? <span className={css.quiet}> {user.email}</span> : null}
                </li>
              ))}
            </ul>
            {owners.length === 0 ? (
              <Notice tone="warn">
                <p>{t('organization.noOwner')}</p>
              </Notice>
            ) : null}
            <div className={css.limit}>
              <dl className={css.facts}>
                <div>
                  <dt>{t('organization.externalId')}</dt>
                  <dd>{organization.externalId ?? t('organization.externalId.none')}</dd>
                </div>
              </dl>
              {organization.purged ? null : (
                <Button small onPress={() => dialog.open('externalId', null)}>
                  {t('organization.externalId.set')}
                </Button>
              )}
            </div>
          </div>
        </Card>
        </div>
      </div>
      <Card title={t('organization.events')}>
        {events.length > 0 ? <EventList events={events} /> : <Empty title={t('organization.events.none')} />}
      </Card>
      {offered.map((what) =>
        dialog.of(what) ? (
          <ReasonDialog
            key={what}
            title={`${t(`organization.${what}`)}: ${name}`}
            text={t(`organization.${what}.text`)}
            action={t(`organization.${what}`)}
            danger={HARSH.includes(what)}
            command={reviews[what]}
            close={closing(reviews[what])}
            act={({ reason = '' }) => act(what, reason)}
          />
        ) : null,
      )}
      {dialog.of('plan') ? (
        <ReasonDialog
          title={t('organization.plan.change')}
          text={t('organization.plan.text')}
          action={t('organization.plan.change')}
          command={changePlan}
          close={closing(changePlan)}
          fields={['plan']}
          act={async ({ plan = '', reason = '' }) => {
            const outcome = await changePlan.run({ organizationId: id, plan, reason, expectedVersion: version });
            if (!outcome?.done) return false;
            toast(t('organization.plan.done', { name, plan }), {
              reason,
              undo: (reason = '') => takingBack(changePlan.run({ organizationId: id, plan: organization.plan, reason })),
            });
            void again();
            return true;
          }}
        >
          <Field
            name="plan"
            label={t('organization.plan.name')}
            hint={t('organization.plan.hint')}
            defaultValue={organization.plan}
            refusals={changePlan.refusals}
            isRequired
            autoFocus
          />
        </ReasonDialog>
      ) : null}
      {limit ? (
        <ReasonDialog
          title={t('organization.limit.of', { limit: maybe(`limit.${limit.name}`, limit.name) })}
          text={t('organization.limit.text', { used: limit.used })}
          action={t('organization.limit.set')}
          command={setLimit}
          close={closing(setLimit)}
          fields={['value']}
          act={async ({ value = '', reason = '' }) => {
            const wrong = setting === 'maximum' && !/^\d{1,15}$/.test(value.trim());
            setNoNumber(wrong);
            if (wrong) return false;
            const outcome = await setLimit.run({
              organizationId: id,
              limit: limit.name,
              reason,
              expectedVersion: version,
              value:
                setting === 'maximum'
                  ? { maximum: globalThis.Number(value) }
                  : setting === 'unlimited'
                    ? { unlimited: true }
                    : { fromPlan: true },
            });
            if (!outcome?.done) return false;
            toast(t('organization.limit.done', { limit: maybe(`limit.${limit.name}`, limit.name) }));
            void again();
            return true;
          }}
        >
          <Choice
            labelled
            label={t('organization.limit.how')}
            value={setting}
            onChange={setSetting}
            options={(['maximum', 'unlimited', 'fromPlan'] as const).map((value) => ({ value, text: t(`organization.limit.${value}`) }))}
          />
          {setting === 'maximum' ? (
            <Field
              name="value"
              inputMode="numeric"
              label={t('organization.limit.value')}
              defaultValue={limit.maximum === null ? '' : String(limit.maximum)}
              refusals={setLimit.refusals}
              isRequired
              autoFocus
            />
          ) : null}
          {noNumber && setting === 'maximum' ? (
            <Notice tone="bad" role="alert">
              <p>{t('organization.limit.noNumber')}</p>
            </Notice>
          ) : null}
        </ReasonDialog>
      ) : null}
      {dialog.of('externalId') ? (
        <ReasonDialog
          title={t('organization.externalId.set')}
          text={t('organization.externalId.text')}
          action={t('act.save')}
          command={setExternalId}
          close={closing(setExternalId)}
          fields={['externalId']}
          act={async ({ externalId = '', reason }) => {
            const outcome = await setExternalId.run({ organizationId: id, externalId, reason, expectedVersion: version });
            if (!outcome?.done) return false;
            toast(t('organization.externalId.done'), {
              reason,
              undo: (reason) =>
                takingBack(setExternalId.run({ organizationId: id, externalId: organization.externalId ?? '', reason })),
            });
            void again();
            return true;
          }}
        >
          <Field
            name="externalId"
            label={t('organization.externalId')}
            defaultValue={organization.externalId ?? ''}
            refusals={setExternalId.refusals}
            autoFocus
          />
        </ReasonDialog>
      ) : null}
    </>
  );
}
