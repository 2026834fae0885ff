import { UserPlus } from 'lucide-react';
import { useState } from 'react';
import { useLocation, useSearch } from 'wouter';
import { useCommand, useRead } from '../../api/hooks.ts';
import {
  AddMemberDocument,
  ChangeMemberRolesDocument,
  type MemberOrder,
  type MemberRowFragment,
  MembersDocument,
  type MembershipState,
  OfferOwnershipDocument,
  ReinstateMemberDocument,
  RemovalDocument,
  RemoveMemberDocument,
  SuspendMemberDocument,
  WithdrawOwnershipOfferDocument,
} from '../../generated/graphql.ts';
import { PermissionButton } from '../../parts/Button.tsx';
import { CheckList } from '../../parts/CheckList.tsx';
import { Choice } from '../../parts/Choice.tsx';
import { FormDialog, useDialog } from '../../parts/Dialogs.tsx';
import { Field } from '../../parts/Field.tsx';
import { Filters, SearchField } from '../../parts/Filters.tsx';
import { type RoleInfo, useGrants } from '../../parts/grants.ts';
import { ActionItem, ActionMenu } from '../../parts/Menu.tsx';
import { Badge, Notice, Refusals, type Tone } from '../../parts/Notice.tsx';
import { Page } from '../../parts/Page.tsx';
import { PagedList } from '../../parts/PagedList.tsx';
import { useFirstPage } from '../../parts/pages.ts';
import parts from '../../parts/parts.module.css';
import { Empty, Failed, Skeleton } from '../../parts/States.tsx';
import { toast } from '../../parts/Toasts.tsx';
import { Time } from '../../parts/Values.tsx';
import { places } from '../../shell/places.ts';
import { useMay, useOrganization, useStanding } from '../../shell/standing.tsx';
import { useText } from '../../texts/texts.tsx';
import css from './members.module.css';

type Member = MemberRowFragment;
type Filter = 'IN' | MembershipState;
const FILTERS: readonly Filter[] = ['IN', 'ACTIVE', 'SUSPENDED', 'REMOVED'];
const TONES: Record<MembershipState, Tone> = { ACTIVE: 'good', SUSPENDED: 'warn', REMOVED: 'plain' };
const ANY = '*';
const ORDERS: readonly MemberOrder[] = ['CREATED', 'NAME'];

export default function Members() {
  const t = useText();
  const [, go] = useLocation();
  const { id: organizationId } = useOrganization();
  const { actsAsOperator } = useStanding();
  const [filter, setFilter] = useState<Filter>('IN');
  // Other screens lead to the holders of a role by `?role=`.
  const asked = new URLSearchParams(useSearch()).get('role');
  const [role, setRole] = useState(asked ?? ANY);
  const [search, setSearch] = useState('');
  // What was found has an order of its own.
  const [orderBy, setOrderBy] = useState<MemberOrder>('CREATED');
  const variables = {
    organizationId,
    state: filter === 'IN' ? null : filter,
    role: role === ANY ? null : role,
    search: search || null,
    orderBy,
  };
  const first = useFirstPage(MembersDocument, variables);
  const [roles, setRoles] = useState<readonly RoleInfo[]>([]);
  if (first.data?.roles && first.data.roles !== roles) setRoles(first.data.roles);
  const grants = useGrants(roles);
  const dialog = useDialog<Member>();
  const change = useCommand(ChangeMemberRolesDocument);
  const suspend = useCommand(SuspendMemberDocument);
  const reinstate = useCommand(ReinstateMemberDocument);
  const remove = useCommand(RemoveMemberDocument);
  const add = useCommand(AddMemberDocument);
  const offer = useCommand(OfferOwnershipDocument);
  const withdraw = useCommand(WithdrawOwnershipOfferDocument);
  const may = useMay();

  // Commands that need no question report here, above the list.
  const stops = dialog.current ? null : [suspend, reinstate, change, remove, add].find(({ refusals, fault }) => refusals.length > 0 || fault);
  const reset = () => [suspend, reinstate, change, remove, add, offer].forEach((command) => command.reset());
  const open = (name: string, member: Member) => {
    reset();
    dialog.open(name, member);
  };
  const close = () => {
    reset();
    dialog.close();
  };
  const mayReinstate = may({ permission: 'member:suspend' }).allowed && may({ capability: 'ADD_MEMBERS' }).allowed;

  const setState = async (member: Member, what: 'suspend' | 'reinstate', reason?: string) => {
    const { id: membershipId, version: expectedVersion } = member;
    reset();
    const outcome = await (what === 'suspend' ? suspend : reinstate).run({ membershipId, expectedVersion, reason });
    if (!outcome?.done) return false;
    const back = what === 'suspend' ? reinstate : suspend;
    toast(
      t(`members.done.${what}`, { name: nameOf(member) }),
      what === 'reinstate' || mayReinstate ? { reason, undo: (reason) => back.run({ membershipId, reason }) } : {},
    );
    return true;
  };
  // Operators are asked for their reason first.
  const ask = (member: Member, what: 'suspend' | 'reinstate') => (actsAsOperator ? open(what, member) : void setState(member, what));

  const changing = dialog.of('change')?.subject;
  const adding = dialog.of('add')?.subject;
  const removing = dialog.of('remove')?.subject;
  const offering = dialog.of('offer')?.subject;

  return (
    <Page
      title={t('members.title')}
      text={t('members.text')}
      actions={
        <PermissionButton
          look="primary"
          need={{ permission: 'member:invite', capability: 'ADD_MEMBERS', limit: 'members' }}
          onPress={() => go(`${places.organization(organizationId, '/invitations')}?new=1`)}
        >
          <UserPlus size={16} aria-hidden />
          {t('members.invite')}
        </PermissionButton>
      }
    >
      <Filters>
        <SearchField label={t('members.search')} value={search} onSearch={setSearch} />
        <Choice
          label={t('members.filter')}
          value={filter}
          onChange={setFilter}
          options={FILTERS.map((value) => ({ value, text: t(`members.filter.${value}`) }))}
        />
        <Choice
          label={t('members.role')}
          value={role}
          onChange={setRole}
          options={[
            { value: ANY, text: t('members.role.any') },
            ...(roles.some(({ name }) => name === role) || role === ANY ? [] : [{ value: role, text: role }]),
            ...roles.map(({ name }) => ({ value: name, text: name })),
          ]}
        />
        {search ? null : (
          <Choice
            label={t('list.order')}
            value={orderBy}
            onChange={setOrderBy}
            options={ORDERS.map((value) => ({ value, text: t(`members.order.${value}`) }))}
          />
        )}
      </Filters>
      {stops ? <Refusals of={stops} /> : null}
      <PagedList
        label={t('members.title')}
        document={MembersDocument}
        variables={variables}
        connection={({ organization }) => organization?.members}
        keep={(member: Member) =>
          (filter === 'IN' ? member.state !== 'REMOVED' : member.state === filter) && (role === ANY || member.roles.includes(role))
        }
        empty={
          <Empty title={t(filter === 'REMOVED' ? 'members.none.former' : 'members.none')}>
            {t(filter === 'REMOVED' ? 'members.none.former.text' : 'members.none.text')}
          </Empty>
        }
        columns={[
          {
            id: 'person',
            title: t('members.person'),
            sorted: !search && orderBy === 'NAME',
            width: 'minmax(0, 2fr)',
            cell: (member) => (
              <span className={parts.main}>
                <span>
                  {nameOf(member, t('members.erased'))}
                  {member.id === grants.mine?.id ? <span className={css.you}>{t('members.you')}</span> : null}
                </span>
                {member.user.name && member.user.email ? <span className={parts.sub}>{member.user.email}</span> : null}
              </span>
            ),
          },
          {
            id: 'roles',
            title: t('members.roles'),
            width: 'minmax(0, 1.25fr)',
            cell: ({ roles }) => (
              <span className={css.roles}>
                {roles.map((role) => (
                  <span key={role} className={css.role} data-owner={role === 'owner' || undefined}>
                    {role}
                  </span>
                ))}
              </span>
            ),
          },
          {
            id: 'state',
            title: t('members.state'),
            width: 'minmax(0, 0.75fr)',
            cell: ({ state }) => <Badge tone={TONES[state]}>{t(`members.state.${state}`)}</Badge>,
          },
          {
            id: 'joined',
            title: t('members.joined'),
            sorted: !search && orderBy === 'CREATED',
            cell: ({ joinedAt, source }) => (
              <span>
                <Time at={joinedAt} withTime={false} /> <span className={parts.sub}>{t(`members.source.${source}`)}</span>
              </span>
            ),
          },
          {
            id: 'actions',
            title: t('members.actions'),
            width: '2rem',
            align: 'end',
            cell: (member) => {
              const self = member.id === grants.mine?.id;
              const against = self ? t('members.self') : grants.againstTaking(member.roles);
              return (
                <Actions member={member}>
                  {member.state === 'ACTIVE' || member.state === 'SUSPENDED' ? (
                    <ActionItem
                      need={{ permission: 'member:update', capability: 'REMOVE_MEMBERS' }}
                      unless={member.roles.includes('owner') && !grants.isOwner ? t('members.take.owner') : null}
                      onAction={() => open('change', member)}
                    >
                      {t('members.change')}
                    </ActionItem>
                  ) : null}
                  {member.state === 'ACTIVE' && grants.isOwner && !self && (actsAsOperator || !member.roles.includes('owner')) ? (
                    <ActionItem need={{ capability: 'ADD_MEMBERS' }} onAction={() => open('offer', member)}>
                      {t('members.offer')}
                    </ActionItem>
                  ) : null}
                  {member.state === 'ACTIVE' ? (
                    <ActionItem
                      need={{ permission: 'member:suspend', capability: 'REMOVE_MEMBERS' }}
                      unless={against}
                      onAction={() => ask(member, 'suspend')}
                    >
                      {t('members.suspend')}
                    </ActionItem>
                  ) : null}
                  {member.state === 'SUSPENDED' ? (
                    <ActionItem
                      need={{ permission: 'member:suspend', capability: 'ADD_MEMBERS', limit: 'members' }}
                      unless={member.roles.map(grants.againstGiving).find((why) => why) ?? null}
                      onAction={() => ask(member, 'reinstate')}
                    >
                      {t('members.reinstate')}
                    </ActionItem>
                  ) : null}
                  {member.state !== 'REMOVED' ? (
                    <ActionItem
                      danger
                      need={{ permission: 'member:remove', capability: 'REMOVE_MEMBERS' }}
                      unless={against}
                      onAction={() => open('remove', member)}
                    >
                      {t('members.remove')}
                    </ActionItem>
                  ) : (
                    <ActionItem
                      need={{ permission: 'member:add', capability: 'ADD_MEMBERS', limit: 'members' }}
                      onAction={() => open('add', member)}
                    >
                      {t('members.add')}
                    </ActionItem>
                  )}
                </Actions>
              );
            },
          },
        ]}
      />
      {changing ? (
        <RolesDialog
          title={t('members.change.of', { name: nameOf(changing) })}
          action={t('act.save')}
          roles={roles}
          held={changing.roles}
          start={changing.roles}
          command={change}
          close={close}
          act={async (next, reason) => {
            const { id: membershipId, version: expectedVersion, roles: before } = changing;
            const outcome = await change.run({ membershipId, expectedVersion, roles: next, reason });
            if (outcome?.done) {
              toast(
                t('members.changed', { name: nameOf(changing), roles: next.join(', ') }),
                { reason, undo: (reason) => change.run({ membershipId, roles: [...before], reason }) },
              );
            }
            return outcome?.done ?? false;
          }}
        />
      ) : null}
      {adding ? (
        <RolesDialog
          title={t('members.add.of', { name: nameOf(adding) })}
          text={t('members.add.text')}
          action={t('members.add')}
          roles={roles}
          held={[]}
          start={adding.roles.filter((name) => roles.some((role) => role.name === name) && !grants.againstGiving(name))}
          command={add}
          close={close}
          act={async (next, reason) => {
            const outcome = await add.run({ organizationId, userId: adding.user.id, roles: next, reason });
            const membershipId = outcome?.payload?.membership?.id;
            if (outcome?.done) {
              toast(
                t('members.done.reinstate', { name: nameOf(adding) }),
                membershipId ? { reason, undo: (reason) => remove.run({ membershipId, reason }) } : {},
              );
            }
            return outcome?.done ?? false;
          }}
        />
      ) : null}
      {removing ? (
        <RemoveDialog
          member={removing}
          command={remove}
          close={close}
          act={async (reason) => {
            const { id: membershipId, version: expectedVersion, user, roles: held } = removing;
            const outcome = await remove.run({ membershipId, expectedVersion, reason });
            // What the removal ended stays ended; the person can come back as they were.
            const back = may({ permission: 'member:add', capability: 'ADD_MEMBERS' }).allowed;
            if (outcome?.done) {
              toast(
                t('members.removed', { name: nameOf(removing) }),
                back ? { reason, undo: (reason) => add.run({ organizationId, userId: user.id, roles: [...held], reason }) } : {},
              );
            }
            return outcome?.done ?? false;
          }}
        />
      ) : null}
      {offering ? (
        <FormDialog
          title={t('members.offer.of', { name: nameOf(offering) })}
          text={t(actsAsOperator ? 'members.offer.operator' : 'members.offer.text', { name: nameOf(offering) })}
          action={t('members.offer.act')}
          command={offer}
          close={close}
          act={async ({ reason }) => {
            const outcome = await offer.run({ membershipId: offering.id, reason });
            if (outcome?.done) {
              toast(t('members.offered', { name: nameOf(offering) }), {
                reason,
                undo: (reason) => withdraw.run({ organizationId, reason }),
              });
            }
            return outcome?.done ?? false;
          }}
        />
      ) : null}
      {(['suspend', 'reinstate'] as const).map((what) => {
        const subject = dialog.of(what)?.subject;
        return subject ? (
          <FormDialog
            key={what}
            title={t(`members.${what}`)}
            text={nameOf(subject)}
            action={t(`members.${what}`)}
            command={what === 'suspend' ? suspend : reinstate}
            close={close}
            act={({ reason }) => setState(subject, what, reason)}
          />
        ) : null;
      })}
    </Page>
  );
}

/** The menu of a member, left out where it would be empty. */
function Actions({ member, children }: { member: Member; children: React.ReactNode }) {
  const t = useText();
  const may = useMay();
  const some = ['member:update', 'member:suspend', 'member:remove', 'member:add'].some((permission) => may({ permission }).allowed);
  return some ? <ActionMenu label={t('members.actionsOf', { name: nameOf(member) })}>{children}</ActionMenu> : null;
}

function RolesDialog({
  title,
  text,
  action,
  roles,
  held,
  start,
  command,
  close,
  act,
}: {
  title: string;
  text?: string;
  action: string;
  roles: readonly RoleInfo[];
  /** What the member has now: taking it away is another right than giving it. */
  held: readonly string[];
  start: readonly string[];
  command: Parameters<typeof FormDialog>[0]['command'];
  close: () => void;
  act: (roles: string[], reason?: string) => Promise<boolean>;
}) {
  const t = useText();
  const [chosen, setChosen] = useState<readonly string[]>(start);
  const { againstGiving, againstTaking } = useGrants(roles);
  const fixed = held.length > 0 ? againstTaking(held) : null;
  const options = roles.map(({ name, description }) => ({
    value: name,
    description,
    against: held.includes(name) ? fixed : againstGiving(name),
  }));
  return (
    <FormDialog
      title={title}
      text={text}
      action={action}
      command={command}
      close={close}
      fields={['roles']}
      act={({ reason }) => act([...chosen], reason)}
    >
      <CheckList
        name="roles"
        label={t('members.roles')}
        hint={t('members.roles.hint')}
        value={chosen}
        onChange={setChosen}
        options={options}
        refusals={command.refusals}
      />
    </FormDialog>
  );
}

/** Shows beforehand what the removal would end. */
function RemoveDialog({
  member,
  command,
  close,
  act,
}: {
  member: Member;
  command: Parameters<typeof FormDialog>[0]['command'];
  close: () => void;
  act: (reason?: string) => Promise<boolean>;
}) {
  const t = useText();
  const { actsAsOperator } = useStanding();
  const reading = useRead(RemovalDocument, { membershipId: member.id });
  const impact = reading.data?.removalImpact;
  return (
    <FormDialog
      danger
      title={t('members.remove.of', { name: nameOf(member) })}
      text={t('members.remove.text')}
      action={!impact || impact.lastOwner ? null : t('members.remove')}
      command={command}
      close={close}
      act={({ reason, because }) => act(reason ?? (because || undefined))}
    >
      {reading.state === 'loading' ? (
        <div aria-busy="true">
          <Skeleton lines={3} />
        </div>
      ) : reading.state === 'failed' ? (
        <Failed fault={reading.fault} retry={reading.retry} />
      ) : impact?.lastOwner ? (
        <Notice tone="bad">
          <p>{t('members.remove.lastOwner')}</p>
        </Notice>
      ) : impact ? (
        <>
          <Notice tone="warn">
            <ul className={css.impact}>
              <li>{t('members.remove.access')}</li>
              <li>{t('members.remove.invitations', { count: impact.openInvitations })}</li>
              <li>{t('members.remove.tokens', { count: impact.apiTokens })}</li>
            </ul>
          </Notice>
          {actsAsOperator ? null : <Field name="because" label={t('members.reason')} hint={t('members.reason.hint')} />}
        </>
      ) : null}
    </FormDialog>
  );
}

function nameOf({ user }: Member, fallback = '—'): string {
  return user.name ?? user.email ?? fallback;
}
