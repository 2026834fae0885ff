import { RotateCw } from 'lucide-react';
import { useState } from 'react';
import { Link } from 'wouter';
import { useReadAgain } from '../../api/again.ts';
import { useRead } from '../../api/hooks.ts';
import { InstallationDocument, type InstallationQuery, type ProjectionState } from '../../generated/graphql.ts';
import { Button } from '../../parts/Button.tsx';
import { useEventSentence } from '../../parts/Event.tsx';
import { Badge, Notice, type Tone } from '../../parts/Notice.tsx';
import { Card, Page } from '../../parts/Page.tsx';
import { Empty, Show } from '../../parts/States.tsx';
import { Time } from '../../parts/Values.tsx';
import { places } from '../../shell/places.ts';
import { useText } from '../../texts/texts.tsx';
import css from './installation.module.css';

type Status = NonNullable<InstallationQuery['auditStatus']>;
type Model = NonNullable<InstallationQuery['projections']>[number];
const TONES: Record<ProjectionState, Tone> = { OK: 'good', BEHIND: 'warn', PARKED: 'bad', REBUILDING: 'accent' };
const READ_AGAIN_MS = 15_000;

export default function Installation() {
  const t = useText();
  const reading = useRead(InstallationDocument, {});
  const again = useReadAgain(InstallationDocument, {}, READ_AGAIN_MS);
  const sentence = useEventSentence();
  const [pending, setPending] = useState(false);
  return (
    <Page
      title={t('installation.title')}
      text={t('installation.text')}
      actions={
        <Button
          isPending={pending}
          onPress={() => {
            setPending(true);
            void again().finally(() => setPending(false));
          }}
        >
          <RotateCw size={16} aria-hidden />
          {t('installation.again')}
        </Button>
      }
    >
      <Show reading={reading}>
        {({ auditStatus, projections, auditTrail }) => (
          <>
            {auditStatus ? <Verification status={auditStatus} /> : null}
            <div className={css.grid}>
              <Card title={t('installation.models')} text={t('installation.models.text')}>
                <ul className={css.models}>
                  {(projections ?? []).map((model) => (
                    <ReadModel key={model.name} model={model} />
                  ))}
                </ul>
              </Card>
              <Card title={t('installation.webhooks')} text={t('installation.webhooks.text')}>
                {auditTrail && auditTrail.nodes.length > 0 ? (
                  <ul className={css.models}>
                    {[...auditTrail.nodes].reverse().map((event) => (
                      <li key={event.id}>
                        <span>
                          {sentence(event)} <span className={css.quiet}>{event.action}</span>
                        </span>
                        <Time at={event.recordedAt} relative />
                        {event.organizationId ? (
                          <Link href={places.operate(`/organizations/${event.organizationId}`)}>{t('installation.alarm.organization')}</Link>
                        ) : null}
                      </li>
                    ))}
                  </ul>
                ) : (
                  <Empty title={t('installation.webhooks.none')} />
                )}
              </Card>
            </div>
          </>
        )}
      </Show>
    </Page>
  );
}

function Verification({ status }: { status: Status }) {
  const t = useText();
  const { alarms, lastRound, currentRound, witnesses } = status;
  return (
    <Card
      title={t('installation.audit')}
      actions={alarms.length > 0 ? <Badge tone="bad">{t('installation.alarms', { count: alarms.length })}</Badge> : null}
    >
      <div className={css.stack}>
        {alarms.length === 0 ? (
          lastRound ? (
            <Notice tone="good">
              <p>{t('installation.fine')}</p>
            </Notice>
          ) : null
        ) : (
          alarms.map((alarm) => (
            <Notice key={`${alarm.message}${alarm.since}`} tone="bad" role="alert">
              <p>{alarm.message}</p>
              <p>
                {t('installation.alarm.since')} <Time at={alarm.since} />
                {alarm.organizationId ? (
                  <>
                    {' · '}
                    <Link href={places.operate(`/organizations/${alarm.organizationId}`)}>{t('installation.alarm.organization')}</Link>
                  </>
                ) : null}
              </p>
            </Notice>
          ))
        )}
        <dl className={css.facts}>
          <div>
            <dt>{t('installation.lastRound')}</dt>
            <dd>{lastRound?.endedAt ? <Time at={lastRound.endedAt} /> : t('installation.noRound')}</dd>
          </div>
          {lastRound ? (
            <div>
              <dt>{t('installation.read')}</dt>
              <dd>{t('installation.events', { events: lastRound.events, organizations: lastRound.organizations })}</dd>
            </div>
          ) : null}
          {currentRound ? (
            <div>
              <dt>{t('installation.currentRound')}</dt>
              <dd>
                <Time at={currentRound.beganAt} /> ·{' '}
                {t('installation.events', { events: currentRound.events, organizations: currentRound.organizations })}
              </dd>
            </div>
          ) : null}
          {(['installation', 'access'] as const).map((which) => {
            const head = status[`${which}Checkpoint`];
            return (
              <div key={which}>
                <dt>{t(`installation.checkpoint.${which}`)}</dt>
                <dd>
                  {head ? (
                    <>
                      {t('installation.checkpoint.size', { size: head.treeSize })} <Time at={head.signedAt} relative />
                      {head.failure ? <Badge tone="bad">{t('installation.failure', { failure: head.failure })}</Badge> : null}
                    </>
                  ) : (
                    t('installation.checkpoint.none')
                  )}
                </dd>
              </div>
            );
          })}
          <div>
            <dt>{t('installation.witnesses')}</dt>
            <dd>
              {witnesses.length === 0 ? t('installation.witnesses.none') : null}
              {witnesses.map(({ name, cosignedAt, failure }) => (
                <div key={name}>
                  {name}:{' '}
                  {failure ? (
                    t('installation.witness.failure', { failure })
                  ) : cosignedAt ? (
                    <>
                      {t('installation.witness.at')} <Time at={cosignedAt} relative />
                    </>
                  ) : (
                    t('installation.witness.never')
                  )}
                </div>
              ))}
            </dd>
          </div>
        </dl>
      </div>
    </Card>
  );
}

function ReadModel({ model: { name, state, lagEvents, lagSeconds, rebuild, parked } }: { model: Model }) {
  const t = useText();
  return (
    <li>
      <span>
        <code>{name}</code>
        {lagEvents > 0 ? (
          <span className={css.quiet}> {t('installation.lag', { events: lagEvents, seconds: Math.round(lagSeconds) })}</span>
        ) : null}
        {rebuild ? <span className={css.quiet}> {t('installation.rebuild', { events: rebuild.events, of: rebuild.of })}</span> : null}
      </span>
      <Badge tone={TONES[state]}>{t(`installation.model.${state}`)}</Badge>
      {parked.length > 0 ? (
        <div className={css.wide}>
          {parked.map(({ stream, failure, tries, retryAt }) => (
            <Notice key={stream} tone="bad">
              <p>
                <code>{stream}</code>: {failure}
              </p>
              <p>
                {t('installation.parked', { tries })} <Time at={retryAt} relative />
              </p>
            </Notice>
          ))}
          <p className={css.quiet}>{t('installation.retry', { name })}</p>
        </div>
      ) : null}
    </li>
  );
}
