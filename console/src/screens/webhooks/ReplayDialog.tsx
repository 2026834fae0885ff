import { useState } from 'react';
import { type AnyVariables, useClient } from 'urql';
import { Fault } from '@tenancy/client';
import { faultOf, useCommand, useRead } from '../../api/hooks.ts';
import {
  RedriveWebhooksDocument,
  ReplayWebhooksDocument,
  WebhookCatalogueDocument,
  WebhookMomentDocument,
  type WebhookMomentQuery,
} from '../../generated/graphql.ts';
import { Choice } from '../../parts/Choice.tsx';
import { FormDialog } from '../../parts/Dialogs.tsx';
import { Field } from '../../parts/Field.tsx';
import { Show } from '../../parts/States.tsx';
import { toast } from '../../parts/Toasts.tsx';
import { useOrganization } from '../../shell/standing.tsx';
import { useText } from '../../texts/texts.tsx';
import { EventTypes } from './EndpointForm.tsx';

const DAY_MS = 86_400_000;

/** Sends what happened since a moment again. The service takes a position of the log: it is looked up by the trail. */
export function ReplayDialog({ endpointId, close, done }: { endpointId: string; close: () => void; done: () => void }) {
  const t = useText();
  const client = useClient();
  const { id: organizationId } = useOrganization();
  const replay = useCommand(ReplayWebhooksDocument);
  const redrive = useCommand(RedriveWebhooksDocument);
  const catalogue = useRead(WebhookCatalogueDocument, {});
  const [what, setWhat] = useState<'failed' | 'everything'>('failed');
  const [types, setTypes] = useState<'all' | 'some'>('all');
  const [chosen, setChosen] = useState<ReadonlySet<string>>(new Set());
  const [fault, setFault] = useState<Fault | null>(null);
  const command = what === 'failed' ? redrive : replay;
  return (
    <FormDialog
      title={t('webhooks.replay')}
      text={t('webhooks.replay.text')}
      action={t('webhooks.replay.act')}
      command={{ ...command, fault: command.fault ?? fault }}
      close={close}
      fields={['since', 'events']}
      act={async ({ since = '', reason }) => {
        setFault(null);
        const until = new Date(since);
        if (Number.isNaN(until.getTime())) {
          setFault(new Fault('BAD_REQUEST', t('webhooks.replay.noMoment')));
          return false;
        }
        const { data, error } = await client
          .query<WebhookMomentQuery>(
            WebhookMomentDocument.toString(),
            { organizationId, until: until.toISOString() } as AnyVariables,
            { requestPolicy: 'network-only' },
          )
          .toPromise();
        const { before, oldest } = data?.organization ?? {};
        const after = (before?.nodes[0] ?? oldest?.nodes[0])?.position;
        if (!after) {
          setFault(error ? faultOf(error) : new Fault('FORBIDDEN', t('webhooks.noTrail')));
          return false;
        }
        const outcome = await command.run({ endpointId, after, events: types === 'some' ? [...chosen] : null, reason });
        if (!outcome?.done) return false;
        toast(t('webhooks.replayed', { scheduled: outcome.payload?.scheduled ?? 0 }));
        done();
        return true;
      }}
    >
      <Choice
        label={t('webhooks.replay.what')}
        labelled
        value={what}
        onChange={setWhat}
        options={(['failed', 'everything'] as const).map((value) => ({ value, text: t(`webhooks.replay.${value}`) }))}
      />
      <Field
        name="since"
        label={t('webhooks.replay.since')}
        type="datetime-local"
        defaultValue={localTime(Date.now() - DAY_MS)}
        isRequired
      />
      <Choice
        label={t('webhooks.which')}
        labelled
        value={types}
        onChange={setTypes}
        options={(['all', 'some'] as const).map((value) => ({ value, text: t(`webhooks.replay.which.${value}`) }))}
      />
      {types === 'some' ? (
        <Show reading={catalogue}>
          {({ webhookEventTypes }) => (
            <EventTypes types={webhookEventTypes ?? []} value={chosen} onChange={setChosen} refusals={command.refusals} />
          )}
        </Show>
      ) : null}
    </FormDialog>
  );
}

/** As `datetime-local` has it: the person's own time, to the minute. */
function localTime(at: number): string {
  const date = new Date(at);
  return new Date(at - date.getTimezoneOffset() * 60_000).toISOString().slice(0, 16);
}
