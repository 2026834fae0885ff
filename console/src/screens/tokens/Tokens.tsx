import { KeyRound } from 'lucide-react';
import { useState } from 'react';
import { Dialog, Heading, Modal, ModalOverlay } from 'react-aria-components';
import { useCommand, useRead } from '../../api/hooks.ts';
import {
  ApiTokensDocument,
  type ApiTokenRowFragment,
  CreateTokenDocument,
  RevokeTokenDocument,
  TokenPermissionsDocument,
} from '../../generated/graphql.ts';
import { Button, PermissionButton } from '../../parts/Button.tsx';
import { type Branch, CheckTree } from '../../parts/CheckTree.tsx';
import { Choice } from '../../parts/Choice.tsx';
import { afterDialog, ConfirmDialog, FormDialog, useDialog } from '../../parts/Dialogs.tsx';
import { Field } from '../../parts/Field.tsx';
import { ActionItem, ActionMenu } from '../../parts/Menu.tsx';
import { newestFirst } from '../../parts/newest.ts';
import { Badge, Notice } from '../../parts/Notice.tsx';
import { Page } from '../../parts/Page.tsx';
import { PagedList } from '../../parts/PagedList.tsx';
import parts from '../../parts/parts.module.css';
import { type Secret, SecretDialog } from '../../parts/Secret.tsx';
import { Empty, Show } from '../../parts/States.tsx';
import { toast } from '../../parts/Toasts.tsx';
import { Time } from '../../parts/Values.tsx';
import { useOrganization, useStanding } from '../../shell/standing.tsx';
import { useText, useTextMaybe } from '../../texts/texts.tsx';
import css from './tokens.module.css';

type Token = ApiTokenRowFragment;

export default function Tokens() {
  const t = useText();
  const { id: organizationId } = useOrganization();
  const { actsAsOperator } = useStanding();
  const dialog = useDialog<Token | null>();
  const [secret, setSecret] = useState<Secret | null>(null);
  const revoke = useCommand(RevokeTokenDocument);
  const createButton = (
    <PermissionButton
      look="primary"
      need={{ permission: 'token:manage', capability: 'CREATE_RESOURCES', limit: 'tokens' }}
      onPress={() => dialog.open('create', null)}
    >
      <KeyRound size={16} aria-hidden />
      {t('tokens.create')}
    </PermissionButton>
  );
  const shown = dialog.of('reach')?.subject;
  const revoked = dialog.of('revoke')?.subject;
  return (
    <Page title={t('tokens.title')} text={t('tokens.text')} actions={createButton}>
      <PagedList
        label={t('tokens.title')}
        document={ApiTokensDocument}
        variables={{ organizationId }}
        connection={({ organization }) => newestFirst(organization?.apiTokens)}
        onOpen={(token) => dialog.open('reach', token)}
        empty={
          <Empty title={t('tokens.empty')} action={createButton}>
            {t('tokens.empty.text')}
          </Empty>
        }
        columns={[
          {
            id: 'name',
            title: t('tokens.name'),
            width: 'minmax(0, 1.5fr)',
            cell: ({ name, hint }) => (
              <span className={parts.main}>
                {name}
                <code className={parts.sub}>{hint}</code>
              </span>
            ),
          },
          { id: 'state', title: t('tokens.state'), width: 'minmax(0, 1.2fr)', cell: (token) => <TokenState token={token} /> },
          {
            id: 'reach',
            title: t('tokens.reach'),
            width: 'minmax(0, 1.2fr)',
            cell: (token) => (
              <Button look="quiet" small onPress={() => dialog.open('reach', token)}>
                <span className="hidden-text">{t('tokens.reachOf', { name: token.name })}: </span>
                {t('tokens.permissions', { count: token.permissions.length })}
              </Button>
            ),
          },
          {
            id: 'used',
            title: t('tokens.used'),
            cell: ({ lastUsedAt }) => (lastUsedAt ? <Time at={lastUsedAt} relative /> : <span className={parts.sub}>{t('tokens.never')}</span>),
          },
          {
            id: 'created',
            title: t('tokens.created'),
            width: 'minmax(0, 1.2fr)',
            cell: ({ createdAt, createdBy }) => (
              <span>
                <Time at={createdAt} withTime={false} />
                <span className={parts.sub}> {createdBy.label}</span>
              </span>
            ),
          },
          {
            id: 'actions',
            title: t('tokens.actions'),
            width: '2rem',
            align: 'end',
            cell: (token) => (
              <ActionMenu label={t('tokens.actionsOf', { name: token.name })}>
                <ActionItem onAction={() => dialog.open('reach', token)}>{t('tokens.showReach')}</ActionItem>
                {stateOf(token) === 'ACTIVE' ? (
                  <ActionItem
                    danger
                    need={{ permission: 'token:manage', capability: 'REMOVE_MEMBERS' }}
                    onAction={() => dialog.open('revoke', token)}
                  >
                    {t('tokens.revoke')}
                  </ActionItem>
                ) : null}
              </ActionMenu>
            ),
          },
        ]}
      />
      {dialog.of('create') ? (
        <CreateDialog
          close={dialog.close}
          made={(value) => afterDialog(() => setSecret({ title: t('tokens.secret'), text: t('tokens.secret.text'), value }))}
        />
      ) : null}
      {shown ? <ReachDialog token={shown} close={dialog.close} /> : null}
      {revoked ? (
        <ConfirmDialog
          title={t('tokens.revokeOf', { name: revoked.name })}
          text={
            <>
              <p>{t('tokens.revoke.text')}</p>
              {revoked.lastUsedAt ? (
                <p>
                  {t('tokens.revoke.used')} <Time at={revoked.lastUsedAt} relative />.
                </p>
              ) : null}
            </>
          }
          action={t('tokens.revoke')}
          command={revoke}
          close={() => {
            revoke.reset();
            dialog.close();
          }}
          act={async ({ reason }) => {
            const outcome = await revoke.run({ tokenId: revoked.id, expectedVersion: revoked.version, reason: reason || null });
            if (outcome?.done) toast(t('tokens.revoked', { name: revoked.name }));
            return outcome?.done ?? false;
          }}
        >
          {/* The dialog asks operators by itself. */}
          {actsAsOperator ? null : <Field name="reason" label={t('act.reason')} hint={t('tokens.revoke.reason')} autoFocus />}
        </ConfirmDialog>
      ) : null}
      {secret ? <SecretDialog secret={secret} close={() => setSecret(null)} /> : null}
    </Page>
  );
}

type State = 'ACTIVE' | 'EXPIRED' | 'REVOKED';
function stateOf({ revokedAt, expiresAt }: Token): State {
  if (revokedAt) return 'REVOKED';
  return expiresAt && Date.parse(expiresAt) <= Date.now() ? 'EXPIRED' : 'ACTIVE';
}

function TokenState({ token }: { token: Token }) {
  const t = useText();
  const state = stateOf(token);
  const at = token.revokedAt ?? token.expiresAt;
  return (
    <span>
      <Badge tone={state === 'ACTIVE' ? 'good' : state === 'EXPIRED' ? 'plain' : 'bad'}>{t(`tokens.state.${state}`)}</Badge>
      <span className={parts.sub}>
        {' '}
        {state === 'ACTIVE' ? t(at ? 'tokens.expires' : 'tokens.expires.never') : null} {at ? <Time at={at} relative /> : null}
      </span>
    </span>
  );
}

/** Permissions by their resource: `project:read` stands below `project`. */
function useBranches(): (permissions: readonly { name: string; description?: string; against?: string | null }[]) => Branch[] {
  const maybe = useTextMaybe();
  return (permissions) => {
    const branches = new Map<string, { id: string; text: string; leaves: Branch['leaves'][number][] }>();
    for (const { name, description, against } of permissions) {
      const [id = name, verb = name] = name.split(':');
      const branch = branches.get(id) ?? { id, text: maybe(`tokens.resource.${id}`, id), leaves: [] };
      branch.leaves.push({ value: name, text: verb, ...(description ? { note: description } : {}), against: against ?? null });
      branches.set(id, branch);
    }
    return [...branches.values()];
  };
}

function ReachDialog({ token, close }: { token: Token; close: () => void }) {
  const t = useText();
  const branches = useBranches()(token.permissions.map((name) => ({ name })));
  return (
    <ModalOverlay className={parts.overlay!} isOpen isDismissable onOpenChange={(open) => !open && close()}>
      <Modal className={parts.modal!}>
        <Dialog className={parts.dialog!}>
          <Heading slot="title" level={2}>
            {t('tokens.reachOf', { name: token.name })}
          </Heading>
          {token.permissions.includes('organization:read') ? null : (
            <Notice tone="warn">
              <p>{t('tokens.blind')}</p>
            </Notice>
          )}
          <ul className={css.tree}>
            {branches.map(({ id, text, leaves }) => (
              <li key={id}>
                {text}
                <ul>
                  {leaves.map(({ value }) => (
                    <li key={value}>
                      <code>{value}</code>
                    </li>
                  ))}
                </ul>
              </li>
            ))}
          </ul>
          <div className={parts.dialogFoot}>
            <Button onPress={close}>{t('act.close')}</Button>
          </div>
        </Dialog>
      </Modal>
    </ModalOverlay>
  );
}

const DAY_MS = 86_400_000;
const LIVES = ['30', '90', '365', 'never', 'date'] as const;

function CreateDialog({ close, made }: { close: () => void; made: (secret: string) => void }) {
  const t = useText();
  const { id: organizationId } = useOrganization();
  const { permissions, actsAsOperator } = useStanding();
  const create = useCommand(CreateTokenDocument);
  const catalogue = useRead(TokenPermissionsDocument, {});
  const toBranches = useBranches();
  // Without it a token sees nothing.
  const [chosen, setChosen] = useState<ReadonlySet<string>>(new Set(['organization:read']));
  const [life, setLife] = useState<(typeof LIVES)[number]>('90');
  return (
    <FormDialog
      title={t('tokens.create')}
      action={t('tokens.create')}
      command={create}
      close={close}
      fields={['name', 'permissions', ...(life === 'date' ? ['expiresAt'] : [])]}
      act={async ({ name = '', expiresAt = '', reason }) => {
        const outcome = await create.run({
          organizationId,
          name,
          permissions: [...chosen],
          expiresAt: expiry(life, expiresAt),
          reason,
        });
        if (outcome?.done && outcome.payload?.secret) made(outcome.payload.secret);
        return outcome?.done ?? false;
      }}
    >
      <Field name="name" label={t('tokens.name')} hint={t('tokens.name.hint')} refusals={create.refusals} isRequired autoFocus />
      <Show reading={catalogue}>
        {({ permissionCatalogue }) => (
          <CheckTree
            name="permissions"
            label={t('tokens.reach')}
            hint={t('tokens.reach.hint')}
            branches={toBranches(
              (permissionCatalogue ?? []).map((permission) => ({
                ...permission,
                against:
                  actsAsOperator || permissions.has(permission.name) ? null : t('may.permission', { permission: permission.name }),
              })),
            )}
            value={chosen}
            onChange={setChosen}
            refusals={create.refusals}
          />
        )}
      </Show>
      {chosen.has('organization:read') ? null : (
        <Notice tone="warn">
          <p>{t('tokens.blind')}</p>
        </Notice>
      )}
      <Choice
        label={t('tokens.life')}
        labelled
        value={life}
        onChange={setLife}
        options={LIVES.map((value) => ({ value, text: t(`tokens.life.${value}`) }))}
      />
      {life === 'date' ? (
        <Field name="expiresAt" label={t('tokens.life.until')} type="datetime-local" refusals={create.refusals} isRequired />
      ) : null}
    </FormDialog>
  );
}

function expiry(life: (typeof LIVES)[number], date: string): string | null {
  if (life === 'never') return null;
  const at = life === 'date' ? Date.parse(date) : Date.now() + Number(life) * DAY_MS;
  return Number.isNaN(at) ? date : new Date(at).toISOString();
}
