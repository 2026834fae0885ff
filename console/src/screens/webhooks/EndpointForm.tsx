import { useState } from 'react';
import { useCommand, useRead } from '../../api/hooks.ts';
import { CreateWebhookDocument, UpdateWebhookDocument, WebhookCatalogueDocument } from '../../generated/graphql.ts';
import { type Branch, CheckTree } from '../../parts/CheckTree.tsx';
import { Choice } from '../../parts/Choice.tsx';
import { FormDialog } from '../../parts/Dialogs.tsx';
import { Field } from '../../parts/Field.tsx';
import { Show } from '../../parts/States.tsx';
import { toast } from '../../parts/Toasts.tsx';
import { useOrganization } from '../../shell/standing.tsx';
import { useText, useTextMaybe } from '../../texts/texts.tsx';
import type { Endpoint } from './EndpointState.tsx';

/** Creates an endpoint, or changes the one that is given. `made` is told the new endpoint's secret. */
export function EndpointForm({
  endpoint,
  close,
  made,
}: {
  endpoint: Endpoint | null;
  close: () => void;
  made?: (secret: string) => void;
}) {
  const t = useText();
  const { id: organizationId } = useOrganization();
  const create = useCommand(CreateWebhookDocument);
  const update = useCommand(UpdateWebhookDocument);
  const command = endpoint ? update : create;
  const catalogue = useRead(WebhookCatalogueDocument, {});
  const [all, setAll] = useState<'all' | 'some'>(!endpoint || endpoint.events.includes('*') ? 'all' : 'some');
  const [chosen, setChosen] = useState<ReadonlySet<string>>(new Set(endpoint?.events.filter((one) => one !== '*')));
  const [content, setContent] = useState(endpoint?.content ?? 'FULL');
  const [ordering, setOrdering] = useState(endpoint?.ordering ?? 'PARALLEL');
  return (
    <FormDialog
      title={t(endpoint ? 'webhooks.change' : 'webhooks.create')}
      action={t(endpoint ? 'act.save' : 'webhooks.create')}
      command={command}
      close={close}
      fields={['url', 'description', 'events', 'ratePerSecond']}
      act={async ({ url = '', description = '', ratePerSecond = '', reason }) => {
        const fields = {
          url,
          description: description || null,
          events: all === 'all' ? ['*'] : [...chosen],
          content,
          ordering,
          ratePerSecond: ratePerSecond ? +ratePerSecond : null,
          reason,
        };
        if (endpoint) {
          const outcome = await update.run({ endpointId: endpoint.id, expectedVersion: endpoint.version, ...fields });
          if (outcome?.done) {
            const { id: endpointId, url, description, events, content, ordering, ratePerSecond } = endpoint;
            toast(t('webhooks.saved'), {
              reason,
              undo: (reason) =>
                update.run({ endpointId, url, description, events: [...events], content, ordering, ratePerSecond, reason }),
            });
          }
          return outcome?.done ?? false;
        }
        const outcome = await create.run({ organizationId, ...fields });
        if (outcome?.done && outcome.payload?.secret) made?.(outcome.payload.secret);
        return outcome?.done ?? false;
      }}
    >
      <Field
        name="url"
        label={t('webhooks.url')}
        hint={t('webhooks.url.hint')}
        defaultValue={endpoint?.url ?? 'https://'}
        refusals={command.refusals}
        isRequired
        autoFocus
      />
      <Field name="description" label={t('webhooks.description')} defaultValue={endpoint?.description ?? ''} refusals={command.refusals} />
      <Choice
        label={t('webhooks.which')}
        labelled
        value={all}
        onChange={setAll}
        options={(['all', 'some'] as const).map((value) => ({ value, text: t(`webhooks.which.${value}`) }))}
      />
      {all === 'some' ? (
        <Show reading={catalogue}>
          {({ webhookEventTypes }) => (
            <EventTypes types={webhookEventTypes ?? []} value={chosen} onChange={setChosen} refusals={command.refusals} />
          )}
        </Show>
      ) : null}
      <Choice
        label={t('webhooks.content')}
        labelled
        value={content}
        onChange={setContent}
        options={(['FULL', 'THIN'] as const).map((value) => ({ value, text: t(`webhooks.content.${value}`) }))}
      />
      <Choice
        label={t('webhooks.ordering')}
        labelled
        value={ordering}
        onChange={setOrdering}
        options={(['PARALLEL', 'PER_SUBJECT'] as const).map((value) => ({ value, text: t(`webhooks.ordering.${value}`) }))}
      />
      <Field
        name="ratePerSecond"
        label={t('webhooks.rate')}
        hint={t('webhooks.rate.hint')}
        type="number"
        inputMode="numeric"
        defaultValue={endpoint?.ratePerSecond ? String(endpoint.ratePerSecond) : ''}
        refusals={command.refusals}
      />
    </FormDialog>
  );
}

/** The catalogue of event types, by the first part of their names. A whole part is a pattern such as `org.*`. */
export function EventTypes({
  types,
  value,
  onChange,
  refusals,
}: {
  types: readonly { name: string; description: string }[];
  value: ReadonlySet<string>;
  onChange: (value: ReadonlySet<string>) => void;
  refusals: Parameters<typeof CheckTree>[0]['refusals'];
}) {
  const t = useText();
  const maybe = useTextMaybe();
  const branches = new Map<string, Branch & { leaves: { value: string; text: string; note: string }[] }>();
  for (const { name, description } of types) {
    const id = name.split('.')[0] ?? name;
    const branch = branches.get(id) ?? { id, text: `${maybe(`webhooks.kind.${id}`, id)} (${id}.*)`, leaves: [] };
    branch.leaves.push({ value: name, text: name, note: description });
    branches.set(id, branch);
  }
  return (
    <CheckTree
      name="events"
      label={t('webhooks.events')}
      hint={t('webhooks.events.hint')}
      branches={[...branches.values()]}
      value={value}
      whole={({ id }) => `${id}.*`}
      onChange={onChange}
      refusals={refusals ?? []}
    />
  );
}
