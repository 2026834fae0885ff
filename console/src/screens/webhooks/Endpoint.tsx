import { RefreshCw } from 'lucide-react';
import { type ReactNode, useState } from 'react';
import { Dialog, Heading, Modal, ModalOverlay } from 'react-aria-components';
import { useLocation } from 'wouter';
import { useReadAgain } from '../../api/again.ts';
import { useCommand, useRead } from '../../api/hooks.ts';
import {
  DeleteWebhookDocument,
  type DeliveryState,
  DisableWebhookDocument,
  EnableWebhookDocument,
  RedeliverWebhookDocument,
  RotateWebhookSecretDocument,
  SendTestWebhookDocument,
  WebhookDeliveriesDocument,
  type WebhookDeliveryRowFragment,
} from '../../generated/graphql.ts';
import { Button, PermissionButton } from '../../parts/Button.tsx';
import { Choice } from '../../parts/Choice.tsx';
import { afterDialog, ConfirmDialog, FormDialog, useDialog } from '../../parts/Dialogs.tsx';
import { useEventSentence } from '../../parts/Event.tsx';
import { ActionItem, ActionMenu } from '../../parts/Menu.tsx';
import { newestFirst } from '../../parts/newest.ts';
import { Badge, Notice, Refusals, type Tone } from '../../parts/Notice.tsx';
import { Card, Page } from '../../parts/Page.tsx';
import { PagedList } from '../../parts/PagedList.tsx';
import { PAGE_SIZE } from '../../parts/pages.ts';
import parts from '../../parts/parts.module.css';
import { type Secret, SecretDialog } from '../../parts/Secret.tsx';
import { Empty, Forbidden, NotFound, Show } from '../../parts/States.tsx';
import { toast } from '../../parts/Toasts.tsx';
import { Time } from '../../parts/Values.tsx';
import { places } from '../../shell/places.ts';
import { useMay, useOrganization, useStanding } from '../../shell/standing.tsx';
import { useText } from '../../texts/texts.tsx';
import type { ScreenProps } from '../screen.ts';
import { AttemptChart } from './AttemptChart.tsx';
import { EndpointForm } from './EndpointForm.tsx';
import { arrived, EndpointState, type Endpoint, lastFailure } from './EndpointState.tsx';
import { ReplayDialog } from './ReplayDialog.tsx';
import css from './webhooks.module.css';

type Delivery = WebhookDeliveryRowFragment;
const STATES: readonly DeliveryState[] = ['PENDING', 'RETRYING', 'FAILED', 'SUCCEEDED'];
const TONES: Record<DeliveryState, Tone> = { PENDING: 'plain', RETRYING: 'warn', FAILED: 'bad', SUCCEEDED: 'good' };
/** Attempts leave no event, so the feed does not tell of them. */
const LOOK_AGAIN_MS = 10_000;

export default function EndpointScreen({ params: { endpointId = '' } }: ScreenProps) {
  const t = useText();
  const may = useMay();
  const [state, setState] = useState<DeliveryState | null>(null);
  // The same request as the list's first page, so that both are one.
  const variables = { endpointId, state, first: PAGE_SIZE, after: null };
  const reading = useRead(WebhookDeliveriesDocument, variables);
  const again = useReadAgain(WebhookDeliveriesDocument, variables, LOOK_AGAIN_MS);
  if (reading.state !== 'ready') {
    return (
      <Page title={t('webhooks.endpoint')}>
        <Show reading={reading}>{() => null}</Show>
      </Page>
    );
  }
  const { node } = reading.data;
  if (node?.__typename !== 'WebhookEndpoint') return <NotFound alone />;
  return (
    <Content
      endpoint={node}
      deliveries={node.deliveries?.nodes ?? []}
      state={state}
      setState={setState}
      lookAgain={() => void again()}
      readsTrail={may({ permission: 'audit:read' }).allowed}
    />
  );
}

type Act = 'enable' | 'disable' | 'test' | 'rotate' | 'delete';

function Content({
  endpoint,
  deliveries,
  state,
  setState,
  lookAgain,
  readsTrail,
}: {
  endpoint: Endpoint;
  deliveries: readonly Delivery[];
  state: DeliveryState | null;
  setState: (state: DeliveryState | null) => void;
  lookAgain: () => void;
  readsTrail: boolean;
}) {
  const t = useText();
  const { id: organizationId } = useOrganization();
  const { actsAsOperator } = useStanding();
  const [, go] = useLocation();
  const dialog = useDialog<Delivery | null>();
  const [secret, setSecret] = useState<Secret | null>(null);
  const enable = useCommand(EnableWebhookDocument);
  const disable = useCommand(DisableWebhookDocument);
  const test = useCommand(SendTestWebhookDocument);
  const rotate = useCommand(RotateWebhookSecretDocument);
  const remove = useCommand(DeleteWebhookDocument);
  const redeliver = useCommand(RedeliverWebhookDocument);
  const commands = { enable, disable, test, rotate, delete: remove };
  // Commands that need no question report here, above the content.
  const stops = [enable, disable, test, redeliver].find(({ refusals, fault }) => refusals.length > 0 || fault);
  const { id: endpointId, version: expectedVersion } = endpoint;

  const act = async (what: Act, reason?: string) => {
    for (const command of [enable, disable, test, redeliver]) command.reset();
    // A test changes nothing, so nobody's change is in its way.
    const input = what === 'test' ? { endpointId, reason } : { endpointId, expectedVersion, reason };
    if (what === 'rotate') {
      const outcome = await rotate.run(input);
      if (outcome?.done && outcome.payload?.secret) {
        const { secret: value } = outcome.payload;
        afterDialog(() => setSecret({ title: t('webhooks.rotated'), text: t('webhooks.rotated.text'), value }));
      }
      return outcome?.done ?? false;
    }
    const outcome = await commands[what].run(input);
    if (!outcome?.done) return false;
    if (what === 'disable') toast(t('webhooks.disabled'), { reason, undo: (reason) => enable.run({ endpointId, reason }) });
    if (what === 'enable') toast(t('webhooks.enabled'), { reason, undo: (reason) => disable.run({ endpointId, reason }) });
    if (what === 'test') toast(t('webhooks.tested'));
    if (what === 'delete') {
      toast(t('webhooks.deleted'));
      go(places.organization(organizationId, '/webhooks'));
    } else {
      setTimeout(lookAgain, 1000);
    }
    return true;
  };
  const resend = async (delivery: Delivery, reason?: string) => {
    redeliver.reset();
    const outcome = await redeliver.run({ deliveryId: delivery.id, reason });
    if (!outcome?.done) return false;
    toast(t('webhooks.resent'));
    setTimeout(lookAgain, 1000);
    return true;
  };
  const ask = (what: Act) => (actsAsOperator ? dialog.open(what, null) : void act(what));

  const change = { permission: 'webhook:manage', capability: 'CHANGE_RESOURCES' } as const;
  // To send anything elsewhere takes the permission to read it.
  const send = { permission: readsTrail ? 'webhook:manage' : 'audit:read', capability: 'CHANGE_RESOURCES' } as const;
  const stop = { permission: 'webhook:manage', capability: 'REMOVE_MEMBERS' } as const;
  const enabled = endpoint.state === 'ENABLED';
  const failure = lastFailure(endpoint);

  return (
    <Page
      title={endpoint.description ?? t('webhooks.endpoint')}
      text={endpoint.url}
      actions={
        <>
          {enabled ? (
            <PermissionButton need={change} onPress={() => ask('test')} isPending={test.pending}>
              {t('webhooks.test')}
            </PermissionButton>
          ) : (
            <PermissionButton look="primary" need={send} onPress={() => ask('enable')} isPending={enable.pending}>
              {t('webhooks.enable')}
            </PermissionButton>
          )}
          <ActionMenu label={t('webhooks.actions')}>
            <ActionItem need={send} onAction={() => dialog.open('change', null)}>
              {t('webhooks.change')}
            </ActionItem>
            <ActionItem need={change} onAction={() => dialog.open('rotate', null)}>
              {t('webhooks.rotate')}
            </ActionItem>
            <ActionItem need={send} onAction={() => dialog.open('replay', null)}>
              {t('webhooks.replay')}
            </ActionItem>
            {enabled ? (
              <ActionItem need={stop} onAction={() => ask('disable')}>
                {t('webhooks.disable')}
              </ActionItem>
            ) : null}
            <ActionItem danger need={stop} onAction={() => dialog.open('delete', null)}>
              {t('webhooks.delete')}
            </ActionItem>
          </ActionMenu>
        </>
      }
    >
      {stops ? <Refusals of={stops} /> : null}
      {enabled ? null : (
        <Notice tone="bad">
          <p>
            {endpoint.disabledReason ? t('webhooks.disabled.because', { reason: endpoint.disabledReason }) : t('webhooks.disabled.text')}
          </p>
        </Notice>
      )}
      {failure ? (
        <Notice tone="warn">
          <p>
            {t('webhooks.failing', { error: failure.error ?? String(failure.status ?? '') })} <Time at={failure.at} relative />.
          </p>
        </Notice>
      ) : null}
      <Card title={t('webhooks.endpoint')} actions={<EndpointState endpoint={endpoint} brief />}>
        <dl className={css.facts}>
          <Fact title={t('webhooks.events')}>
            <code className={css.patterns}>{endpoint.events.join(' ')}</code>
          </Fact>
          <Fact title={t('webhooks.content')}>{t(`webhooks.content.${endpoint.content}`)}</Fact>
          <Fact title={t('webhooks.ordering')}>{t(`webhooks.ordering.${endpoint.ordering}`)}</Fact>
          <Fact title={t('webhooks.rate')}>{endpoint.ratePerSecond ?? t('webhooks.rate.none')}</Fact>
          <Fact title={t('webhooks.created')}>
            <Time at={endpoint.createdAt} />
          </Fact>
        </dl>
      </Card>
      {readsTrail ? (
        <>
          {deliveries.some(({ attempts }) => attempts.length > 0) ? (
            <Card title={t('webhooks.chart')} text={t('webhooks.chart.text', { count: deliveries.length })}>
              <AttemptChart attempts={deliveries.flatMap(({ attempts }) => attempts)} />
            </Card>
          ) : null}
          <div className={css.bar}>
            <h2>{t('webhooks.deliveries')}</h2>
            <span className={css.legend}>
              <Choice
                label={t('webhooks.filter')}
                value={state ?? 'ALL'}
                onChange={(value) => setState(value === 'ALL' ? null : value)}
                options={(['ALL', ...STATES] as const).map((value) => ({ value, text: t(`webhooks.delivery.${value}`) }))}
              />
              <Button icon aria-label={t('webhooks.lookAgain')} onPress={lookAgain}>
                <RefreshCw size={14} aria-hidden />
              </Button>
            </span>
          </div>
          <Deliveries
            endpointId={endpointId}
            state={state}
            onOpen={(delivery) => dialog.open('attempts', delivery)}
            onResend={(delivery) => (actsAsOperator ? dialog.open('resend', delivery) : void resend(delivery))}
          />
        </>
      ) : (
        <Card title={t('webhooks.deliveries')}>
          <Forbidden />
          <p>{t('webhooks.noTrail')}</p>
        </Card>
      )}
      {dialog.of('change') ? <EndpointForm endpoint={endpoint} close={dialog.close} /> : null}
      {dialog.of('replay') ? <ReplayDialog endpointId={endpointId} close={dialog.close} done={lookAgain} /> : null}
      {(['rotate', 'delete', 'enable', 'disable', 'test'] as const).map((what) =>
        dialog.of(what) ? (
          <ConfirmOrForm
            key={what}
            danger={what === 'delete'}
            title={t(`webhooks.${what}`)}
            text={what === 'rotate' || what === 'delete' ? t(`webhooks.${what}.text`) : endpoint.url}
            action={t(`webhooks.${what}`)}
            command={commands[what]}
            close={() => {
              commands[what].reset();
              dialog.close();
            }}
            act={({ reason }) => act(what, reason)}
          />
        ) : null,
      )}
      {dialog.of('resend')?.subject ? (
        <FormDialog
          title={t('webhooks.resend')}
          action={t('webhooks.resend')}
          command={redeliver}
          close={dialog.close}
          act={async ({ reason }) => {
            const subject = dialog.of('resend')?.subject;
            return subject ? resend(subject, reason) : true;
          }}
        />
      ) : null}
      {dialog.of('attempts')?.subject ? (
        <Attempts
          // What the list reads meanwhile is shown here too.
          delivery={deliveries.find(({ id }) => id === dialog.of('attempts')?.subject?.id) ?? dialog.of('attempts')!.subject!}
          close={dialog.close}
        />
      ) : null}
      {secret ? <SecretDialog secret={secret} close={() => setSecret(null)} /> : null}
    </Page>
  );
}

function ConfirmOrForm({ danger, ...props }: { danger: boolean } & Parameters<typeof ConfirmDialog>[0]) {
  return danger ? <ConfirmDialog {...props} /> : <FormDialog {...props} />;
}

function Fact({ title, children }: { title: string; children: ReactNode }) {
  return (
    <div>
      <dt>{title}</dt>
      <dd>{children}</dd>
    </div>
  );
}

function Deliveries({
  endpointId,
  state,
  onOpen,
  onResend,
}: {
  endpointId: string;
  state: DeliveryState | null;
  onOpen: (delivery: Delivery) => void;
  onResend: (delivery: Delivery) => void;
}) {
  const t = useText();
  const sentence = useEventSentence();
  return (
    <PagedList
      label={t('webhooks.deliveries')}
      document={WebhookDeliveriesDocument}
      variables={{ endpointId, state }}
      known
      connection={({ node }) => (node?.__typename === 'WebhookEndpoint' ? newestFirst(node.deliveries) : null)}
      onOpen={onOpen}
      empty={<Empty title={t(state ? 'webhooks.deliveries.none' : 'webhooks.deliveries.empty')}>{state ? null : t('webhooks.deliveries.empty.text')}</Empty>}
      columns={[
        {
          id: 'event',
          title: t('webhooks.event'),
          width: 'minmax(0, 2fr)',
          cell: ({ event }) => (
            <span className={parts.main}>
              <code className={css.patterns}>{event.action}</code>
              <span className={parts.sub}>{sentence(event)}</span>
            </span>
          ),
        },
        {
          id: 'state',
          title: t('webhooks.state'),
          cell: ({ state, nextAttemptAt }) => (
            <span>
              <Badge tone={TONES[state]}>{t(`webhooks.delivery.${state}`)}</Badge>
              {nextAttemptAt && state === 'RETRYING' ? (
                <span className={parts.sub}>
                  {' '}
                  {t('webhooks.next')} <Time at={nextAttemptAt} relative />
                </span>
              ) : null}
            </span>
          ),
        },
        {
          id: 'last',
          title: t('webhooks.last'),
          cell: ({ attempts }) => {
            const last = attempts.at(-1);
            return last ? (
              <span>
                <Time at={last.at} relative />
                <span className={parts.sub}> {last.status ? t('webhooks.answered', { status: String(last.status) }) : t('webhooks.noAnswer')}</span>
              </span>
            ) : (
              '—'
            );
          },
        },
        { id: 'attempts', title: t('webhooks.attempts'), width: '5rem', cell: ({ attempts }) => attempts.length },
        {
          id: 'actions',
          title: t('webhooks.actions'),
          width: '2rem',
          align: 'end',
          cell: (delivery) => (
            <ActionMenu label={t('webhooks.actionsOf', { action: delivery.event.action })}>
              <ActionItem onAction={() => onOpen(delivery)}>{t('webhooks.showAttempts')}</ActionItem>
              <ActionItem need={{ permission: 'webhook:manage', capability: 'CHANGE_RESOURCES' }} onAction={() => onResend(delivery)}>
                {t('webhooks.resend')}
              </ActionItem>
            </ActionMenu>
          ),
        },
      ]}
    />
  );
}

/** What was tried of one delivery, the newest first. */
function Attempts({ delivery: { event, attempts }, close }: { delivery: Delivery; close: () => void }) {
  const t = useText();
  return (
    <ModalOverlay className={parts.overlay!} isOpen isDismissable onOpenChange={(open) => !open && close()}>
      <Modal className={parts.modal!}>
        <Dialog className={parts.dialog!}>
          <Heading slot="title" level={2}>
            {t('webhooks.attemptsOf', { action: event.action })}
          </Heading>
          <p className={parts.dialogText}>
            {t('webhooks.messageId')} <code className={css.patterns}>{event.id}</code>
          </p>
          {attempts.length === 0 ? <p>{t('webhooks.attempts.none')}</p> : null}
          <ol className={css.attempts} tabIndex={0} aria-label={t('webhooks.attempts')}>
            {[...attempts].reverse().map(({ at, durationMs, status, error, responseExcerpt }) => (
              <li key={at} className={css.attempt}>
                <span className={css.attemptHead}>
                  <Badge tone={arrived(status) ? 'good' : 'bad'}>{status ?? t('webhooks.noAnswer')}</Badge>
                  <Time at={at} />
                  <span>{t('webhooks.took', { ms: durationMs })}</span>
                </span>
                {error ? <span>{error}</span> : null}
                {responseExcerpt ? <pre className={css.answer}>{responseExcerpt}</pre> : null}
              </li>
            ))}
          </ol>
          <div className={parts.dialogFoot}>
            <Button onPress={close}>{t('act.close')}</Button>
          </div>
        </Dialog>
      </Modal>
    </ModalOverlay>
  );
}
