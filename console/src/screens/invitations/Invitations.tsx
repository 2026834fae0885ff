import { MailPlus } from 'lucide-react';
import { useEffect, useState } from 'react';
import { useLocation, useSearch } from 'wouter';
import { useCommand } from '../../api/hooks.ts';
import {
  type InvitationRowFragment,
  InvitationsDocument,
  type InvitationState,
  InviteMemberDocument,
  ResendInvitationDocument,
  RevokeInvitationDocument,
} from '../../generated/graphql.ts';
import { PermissionButton } from '../../parts/Button.tsx';
import { CheckList } from '../../parts/CheckList.tsx';
import { Choice } from '../../parts/Choice.tsx';
import { afterDialog, FormDialog, useDialog } from '../../parts/Dialogs.tsx';
import { Field } from '../../parts/Field.tsx';
import { Filters } from '../../parts/Filters.tsx';
import { type RoleInfo, useGrants } from '../../parts/grants.ts';
import { ActionItem, ActionMenu } from '../../parts/Menu.tsx';
import { Badge, Notice, Refusals, type Tone } from '../../parts/Notice.tsx';
import { CopyField } from '../../parts/Once.tsx';
import { Page } from '../../parts/Page.tsx';
import { PagedList } from '../../parts/PagedList.tsx';
import { useFirstPage } from '../../parts/pages.ts';
import parts from '../../parts/parts.module.css';
import { Empty } from '../../parts/States.tsx';
import { toast } from '../../parts/Toasts.tsx';
import { Time } from '../../parts/Values.tsx';
import { useMay, useOrganization, useStanding } from '../../shell/standing.tsx';
import { useText } from '../../texts/texts.tsx';

type Invitation = InvitationRowFragment;
type Filter = InvitationState | 'ALL';
const FILTERS: readonly Filter[] = ['PENDING', 'ACCEPTED', 'DECLINED', 'EXPIRED', 'REVOKED', 'ALL'];
const TONES: Record<InvitationState, Tone> = { PENDING: 'accent', ACCEPTED: 'good', DECLINED: 'warn', EXPIRED: 'plain', REVOKED: 'bad' };
/** The service's own default, where the person chooses none, and what people expect. */
const HOURS = ['default', '24', '72', '168', '336', '720'] as const;

/** Shown once: it is nowhere but on the screen. */
interface Once {
  email: string;
  token: string | null;
}

export default function Invitations() {
  const t = useText();
  const [location, go] = useLocation();
  const wanted = new URLSearchParams(useSearch()).has('new');
  const { id: organizationId } = useOrganization();
  const { actsAsOperator } = useStanding();
  const may = useMay();
  const [filter, setFilter] = useState<Filter>('PENDING');
  const variables = { organizationId, state: filter === 'ALL' ? null : filter };
  const first = useFirstPage(InvitationsDocument, variables);
  const [roles, setRoles] = useState<readonly RoleInfo[]>([]);
  if (first.data?.roles && first.data.roles !== roles) setRoles(first.data.roles);
  const grants = useGrants(roles);
  const dialog = useDialog<Invitation | Once | null>();
  const invite = useCommand(InviteMemberDocument);
  const resend = useCommand(ResendInvitationDocument);
  const revoke = useCommand(RevokeInvitationDocument);
  const needed = { permission: 'member:invite', capability: 'ADD_MEMBERS', limit: 'members' } as const;

  const reset = () => [invite, resend, revoke].forEach((command) => command.reset());
  const open = (name: string, subject: Invitation | Once | null) => {
    reset();
    dialog.open(name, subject);
  };
  const close = () => {
    reset();
    dialog.close();
  };
  // Another screen leads here to invite somebody.
  useEffect(() => {
    if (!wanted) return;
    go(location, { replace: true });
    if (may(needed).allowed) dialog.open('invite', null);
  }, [wanted]);

  const stops = dialog.current ? null : [resend, revoke].find(({ refusals, fault }) => refusals.length > 0 || fault);

  const sendAgain = async ({ id: invitationId, version: expectedVersion, email }: Invitation, reason?: string) => {
    reset();
    const outcome = await resend.run({ invitationId, expectedVersion, reason });
    if (!outcome?.done) return false;
    afterDialog(() => dialog.open('once', { email: email ?? '', token: outcome.payload.token ?? null }));
    return true;
  };
  const takeBack = async ({ id: invitationId, version: expectedVersion, email }: Invitation, reason?: string) => {
    reset();
    const outcome = await revoke.run({ invitationId, expectedVersion, reason });
    if (outcome?.done) toast(t('invitations.revoked', { email: email ?? '—' }));
    return outcome?.done ?? false;
  };

  const button = (
    <PermissionButton look="primary" need={needed} onPress={() => open('invite', null)}>
      <MailPlus size={16} aria-hidden />
      {t('invitations.invite')}
    </PermissionButton>
  );
  const once = dialog.of('once')?.subject as Once | undefined;
  const resending = dialog.of('resend')?.subject as Invitation | undefined;
  const revoking = dialog.of('revoke')?.subject as Invitation | undefined;

  return (
    <Page title={t('invitations.title')} text={t('invitations.text')} actions={button}>
      <Filters>
        <Choice
          label={t('invitations.filter')}
          value={filter}
          onChange={setFilter}
          options={FILTERS.map((value) => ({ value, text: t(`invitations.state.${value}`) }))}
        />
      </Filters>
      {stops ? <Refusals of={stops} /> : null}
      <PagedList
        label={t('invitations.title')}
        document={InvitationsDocument}
        variables={variables}
        connection={({ organization }) => organization?.invitations}
        keep={({ state }: Invitation) => filter === 'ALL' || state === filter}
        empty={
          filter === 'PENDING' ? (
            <Empty title={t('invitations.none.open')} action={button}>
              {may(needed).allowed ? t('invitations.none.open.text') : <Reason />}
            </Empty>
          ) : (
            <Empty title={t('invitations.none')} />
          )
        }
        columns={[
          {
            id: 'email',
            title: t('invitations.email'),
            width: 'minmax(0, 1.75fr)',
            cell: ({ email, invitedBy }) => (
              <span className={parts.main}>
                {email ?? t('invitations.erased')}
                <span className={parts.sub}>{t('invitations.by', { name: invitedBy.label })}</span>
              </span>
            ),
          },
          { id: 'roles', title: t('invitations.roles'), cell: ({ roles }) => roles.join(', ') },
          {
            id: 'state',
            title: t('invitations.state'),
            width: 'minmax(0, 0.75fr)',
            cell: ({ state }) => <Badge tone={TONES[state]}>{t(`invitations.state.${state}`)}</Badge>,
          },
          {
            id: 'expires',
            title: t('invitations.expires'),
            cell: ({ state, expiresAt }) => (state === 'PENDING' ? <Time at={expiresAt} relative /> : <Time at={expiresAt} withTime={false} />),
          },
          {
            id: 'actions',
            title: t('invitations.actions'),
            width: '2rem',
            align: 'end',
            cell: (invitation) =>
              invitation.state !== 'ACCEPTED' && may({ permission: 'member:invite' }).allowed ? (
                <ActionMenu label={t('invitations.actionsOf', { email: invitation.email ?? '—' })}>
                  {invitation.state === 'PENDING' ? (
                    <>
                      <ActionItem
                        need={{ permission: 'member:invite', capability: 'ADD_MEMBERS' }}
                        unless={invitation.roles.map(grants.againstGiving).find((why) => why) ?? null}
                        onAction={() => (actsAsOperator ? open('resend', invitation) : void sendAgain(invitation))}
                      >
                        {t('invitations.resend')}
                      </ActionItem>
                      <ActionItem danger need={{ permission: 'member:invite' }} onAction={() => open('revoke', invitation)}>
                        {t('invitations.revoke')}
                      </ActionItem>
                    </>
                  ) : (
                    <ActionItem need={needed} onAction={() => open('invite', invitation)}>
                      {t('invitations.again')}
                    </ActionItem>
                  )}
                </ActionMenu>
              ) : null,
          },
        ]}
      />
      {dialog.of('invite') ? (
        <InviteDialog
          roles={roles}
          before={dialog.of('invite')?.subject as Invitation | null}
          command={invite}
          close={close}
          act={async (input) => {
            const outcome = await invite.run({ organizationId, ...input });
            if (!outcome?.done) return false;
            setFilter('PENDING');
            afterDialog(() => dialog.open('once', { email: input.email, token: outcome.payload.token ?? null }));
            return true;
          }}
        />
      ) : null}
      {once ? <OnceDialog once={once} close={close} /> : null}
      {resending ? (
        <FormDialog
          title={t('invitations.resend')}
          text={resending.email}
          action={t('invitations.resend')}
          command={resend}
          close={close}
          act={({ reason }) => sendAgain(resending, reason)}
        />
      ) : null}
      {revoking ? (
        <FormDialog
          danger
          title={t('invitations.revoke')}
          text={t('invitations.revoke.text', { email: revoking.email ?? '—' })}
          action={t('invitations.revoke')}
          command={revoke}
          close={close}
          act={({ reason }) => takeBack(revoking, reason)}
        />
      ) : null}
    </Page>
  );
}

/** Why nobody can be invited now. */
function Reason() {
  const may = useMay()({ permission: 'member:invite', capability: 'ADD_MEMBERS', limit: 'members' });
  return may.allowed ? null : <>{may.reason}</>;
}

function InviteDialog({
  roles,
  before,
  command,
  close,
  act,
}: {
  roles: readonly RoleInfo[];
  /** An earlier invitation that is repeated. */
  before: Invitation | null;
  command: Parameters<typeof FormDialog>[0]['command'];
  close: () => void;
  act: (input: { email: string; roles: string[]; expiresInHours?: number; reason?: string }) => Promise<boolean>;
}) {
  const t = useText();
  const { againstGiving } = useGrants(roles);
  const [chosen, setChosen] = useState<string[]>(before?.roles.filter((name) => !againstGiving(name)) ?? ['member']);
  const [hours, setHours] = useState<(typeof HOURS)[number]>('default');
  return (
    <FormDialog
      title={t('invitations.invite.title')}
      action={t('invitations.invite')}
      command={command}
      close={close}
      fields={['email', 'roles', 'expiresInHours']}
      act={({ email = '', reason }) =>
        act({ email, roles: chosen, reason, ...(hours === 'default' ? {} : { expiresInHours: Number(hours) }) })
      }
    >
      <Field name="email" type="email" label={t('invitations.email')} defaultValue={before?.email ?? ''} refusals={command.refusals} isRequired autoFocus />
      <CheckList
        name="roles"
        label={t('invitations.roles')}
        value={chosen}
        onChange={setChosen}
        options={roles.map(({ name, description }) => ({ value: name, description, against: againstGiving(name) }))}
        refusals={command.refusals}
      />
      <Choice
        labelled
        label={t('invitations.expiry')}
        value={hours}
        onChange={setHours}
        options={HOURS.map((value) => ({
          value,
          text: value === 'default' ? t('invitations.expiry.default') : t('invitations.expiry.days', { days: Number(value) / 24 }),
        }))}
      />
      <Refusals of={{ refusals: command.refusals.filter(({ path }) => path?.includes('expiresInHours')), fault: null }} />
    </FormDialog>
  );
}

/** The token is in the link's fragment, which no server is sent. The page that opens it takes it out of the address. */
function OnceDialog({ once: { email, token }, close }: { once: Once; close: () => void }) {
  const t = useText();
  return (
    <FormDialog
      title={t('invitations.once')}
      text={t(token ? 'invitations.once.text' : 'invitations.once.gone', { email })}
      action={null}
      command={{ refusals: [], fault: null, pending: false }}
      close={close}
      act={() => Promise.resolve(true)}
    >
      {token ? (
        <>
          <CopyField label={t('invitations.once.link')} value={`${location.origin}/console/invitations#invitation=${token}`} />
          <CopyField label={t('invitations.once.token')} value={token} />
          <Notice>
            <p>{t('invitations.once.note')}</p>
          </Notice>
        </>
      ) : null}
    </FormDialog>
  );
}
