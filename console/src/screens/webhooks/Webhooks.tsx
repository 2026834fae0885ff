import { Webhook as Icon } from 'lucide-react';
import { useState } from 'react';
import { useLocation } from 'wouter';
import { useReadAgain } from '../../api/again.ts';
import { WebhookEndpointsDocument } from '../../generated/graphql.ts';
import { PermissionButton } from '../../parts/Button.tsx';
import { Notice } from '../../parts/Notice.tsx';
import { afterDialog } from '../../parts/Dialogs.tsx';
import { Page } from '../../parts/Page.tsx';
import { PagedList } from '../../parts/PagedList.tsx';
import { PAGE_SIZE, useFirstPage } from '../../parts/pages.ts';
import parts from '../../parts/parts.module.css';
import { type Secret, SecretDialog } from '../../parts/Secret.tsx';
import { Empty } from '../../parts/States.tsx';
import { Time } from '../../parts/Values.tsx';
import { places } from '../../shell/places.ts';
import { useMay, useOrganization } from '../../shell/standing.tsx';
import { useText } from '../../texts/texts.tsx';
import { EndpointState } from './EndpointState.tsx';
import { EndpointForm } from './EndpointForm.tsx';
import css from './webhooks.module.css';

export default function Webhooks() {
  const t = useText();
  const may = useMay();
  const { id: organizationId } = useOrganization();
  const first = useFirstPage(WebhookEndpointsDocument, { organizationId });
  const again = useReadAgain(WebhookEndpointsDocument, { organizationId, first: PAGE_SIZE, after: null });
  const [, go] = useLocation();
  const [creating, setCreating] = useState(false);
  const [secret, setSecret] = useState<Secret | null>(null);
  // An endpoint is sent what the audit trail says: creating one takes both permissions.
  const readsTrail = may({ permission: 'audit:read' });
  const manages = may({ permission: 'webhook:manage' });
  const createButton = (
    <PermissionButton
      look="primary"
      need={{
        permission: manages.allowed ? 'audit:read' : 'webhook:manage',
        capability: 'CREATE_RESOURCES',
        limit: 'webhooks',
      }}
      whenForbidden={manages.allowed ? 'explain' : 'hide'}
      onPress={() => setCreating(true)}
    >
      <Icon size={16} aria-hidden />
      {t('webhooks.create')}
    </PermissionButton>
  );
  return (
    <Page
      title={t('webhooks.title')}
      count={first.data?.organization?.webhookEndpoints?.totalCount}
      text={t('webhooks.text')}
      actions={createButton}
    >
      {readsTrail.allowed ? null : (
        <Notice>
          <p>{t('webhooks.noTrail')}</p>
        </Notice>
      )}
      <PagedList
        label={t('webhooks.title')}
        document={WebhookEndpointsDocument}
        variables={{ organizationId }}
        connection={({ organization }) => organization?.webhookEndpoints}
        onOpen={({ id }) => go(places.organization(organizationId, `/webhooks/${id}`))}
        empty={
          <Empty title={t('webhooks.empty')} action={createButton}>
            {t('webhooks.empty.text')}
          </Empty>
        }
        columns={[
          {
            id: 'url',
            title: t('webhooks.url'),
            width: 'minmax(0, 2fr)',
            cell: ({ id, url, description }) => (
              <span className={parts.main}>
                <a
                  className={css.link}
                  href={`/console${places.organization(organizationId, `/webhooks/${id}`)}`}
                  onClick={(event) => {
                    if (event.ctrlKey || event.metaKey || event.shiftKey) return;
                    event.preventDefault();
                    go(places.organization(organizationId, `/webhooks/${id}`));
                  }}
                >
                  {url}
                </a>
                <span className={parts.sub}>{description}</span>
              </span>
            ),
          },
          { id: 'state', title: t('webhooks.state'), width: 'minmax(0, 1.4fr)', cell: (endpoint) => <EndpointState endpoint={endpoint} /> },
          {
            id: 'events',
            title: t('webhooks.events'),
            cell: ({ events }) => <code className={css.patterns}>{events.join(' ')}</code>,
          },
          { id: 'created', title: t('webhooks.created'), cell: ({ createdAt }) => <Time at={createdAt} withTime={false} /> },
        ]}
      />
      {creating ? (
        <EndpointForm
          endpoint={null}
          close={() => setCreating(false)}
          made={(value) => afterDialog(() => setSecret({ title: t('webhooks.secret'), text: t('webhooks.secret.text'), value }))}
        />
      ) : null}
      {secret ? <SecretDialog
          secret={secret}
          close={() => {
            setSecret(null);
            // A re-read that was under way when the endpoint was created does not hold it.
            void again();
          }}
        /> : null}
    </Page>
  );
}
