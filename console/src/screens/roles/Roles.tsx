import { ChevronRight, Plus } from 'lucide-react';
import { useState } from 'react';
import { Button as AriaButton, Disclosure, DisclosurePanel, Heading } from 'react-aria-components';
import { Link } from 'wouter';
import { useCommand, useRead } from '../../api/hooks.ts';
import { DefineRoleDocument, RemoveRoleDocument, RoleHoldersDocument, RolesDocument, type RolesQuery } from '../../generated/graphql.ts';
import { PermissionButton } from '../../parts/Button.tsx';
import { CheckList } from '../../parts/CheckList.tsx';
import { Choice } from '../../parts/Choice.tsx';
import { FormDialog, useDialog } from '../../parts/Dialogs.tsx';
import { Field } from '../../parts/Field.tsx';
import { type RoleInfo, useGrants } from '../../parts/grants.ts';
import { ActionItem, ActionMenu } from '../../parts/Menu.tsx';
import { Badge, Refusals } from '../../parts/Notice.tsx';
import { Card, Page } from '../../parts/Page.tsx';
import { Empty, Failed, Show, Skeleton } from '../../parts/States.tsx';
import { toast } from '../../parts/Toasts.tsx';
import { places } from '../../shell/places.ts';
import { useMay, useOrganization } from '../../shell/standing.tsx';
import { useText } from '../../texts/texts.tsx';
import css from './roles.module.css';

type Role = NonNullable<RolesQuery['roles']>[number];
type Catalogue = NonNullable<RolesQuery['permissionCatalogue']>;
const MANAGE = { permission: 'role:manage' } as const;
/** A new role is there to be granted; one that permits less, or is gone, takes. */
const GIVE = { ...MANAGE, capability: 'ADD_MEMBERS' } as const;
const TAKE = { ...MANAGE, capability: 'REMOVE_MEMBERS' } as const;

export default function Roles() {
  const t = useText();
  const { id: organizationId } = useOrganization();
  const reading = useRead(RolesDocument, { organizationId });
  const roles = reading.data?.roles ?? [];
  const catalogue = reading.data?.permissionCatalogue ?? [];
  const dialog = useDialog<Role | null>();
  const define = useCommand(DefineRoleDocument);
  const remove = useCommand(RemoveRoleDocument);
  /** As it was when the dialog opened: others may change the roles meanwhile. */
  const [expectedVersion, setExpectedVersion] = useState<number | null>(null);
  const open = (name: string, role: Role | null) => {
    define.reset();
    setExpectedVersion(reading.data?.organization?.version ?? null);
    dialog.open(name, role);
  };
  const close = () => {
    define.reset();
    remove.reset();
    dialog.close();
  };
  const changing = dialog.of('change')?.subject ?? null;
  const removing = dialog.of('remove')?.subject;
  const stops = dialog.current ? null : [define].find(({ refusals, fault }) => refusals.length > 0 || fault);
  const button = (
    <PermissionButton look="primary" need={GIVE} onPress={() => open('define', null)}>
      <Plus size={16} aria-hidden />
      {t('roles.define')}
    </PermissionButton>
  );
  const defineAs = ({ name, description, permissions }: Role, reason?: string) =>
    define.run({ organizationId, name, description, permissions: [...permissions], reason });
  const save = async (role: { name: string; description: string; permissions: string[] }, before: Role | null, reason?: string) => {
    const outcome = await define.run({ organizationId, ...role, expectedVersion, reason });
    if (!outcome?.done) return false;
    toast(t(before ? 'roles.changed' : 'roles.defined', { name: role.name }), {
      reason,
      undo: (reason) => (before ? defineAs(before, reason) : remove.run({ organizationId, name: role.name, reason })),
    });
    return true;
  };
  return (
    <Page title={t('roles.title')} text={t('roles.text')} actions={button}>
      {stops ? <Refusals of={stops} /> : null}
      <Show reading={reading}>
        {() => (
          <>
            <Card title={t('roles.own')} text={t('roles.own.text')}>
              {roles.some(({ builtIn }) => !builtIn) ? (
                <List roles={roles.filter(({ builtIn }) => !builtIn)} all={roles} catalogue={catalogue} open={open} />
              ) : (
                <Empty title={t('roles.none')} action={button}>
                  {t('roles.none.text')}
                </Empty>
              )}
            </Card>
            <Card title={t('roles.builtIn')} text={t('roles.builtIn.text')}>
              <List roles={roles.filter(({ builtIn }) => builtIn)} all={roles} catalogue={catalogue} open={open} />
            </Card>
          </>
        )}
      </Show>
      {dialog.of('define') || changing ? (
        <DefineDialog
          role={changing}
          catalogue={catalogue}
          command={define}
          close={close}
          act={(role, reason) => save(role, changing, reason)}
        />
      ) : null}
      {removing ? (
        <RemoveDialog
          role={removing}
          roles={roles}
          command={remove}
          close={close}
          act={async (replaceWith, reason) => {
            const outcome = await remove.run({ organizationId, name: removing.name, expectedVersion, reason, ...(replaceWith ? { replaceWith } : {}) });
            // Those who held it have another role now, and that stays.
            const back = replaceWith ? {} : { reason, undo: (reason?: string) => defineAs(removing, reason) };
            if (outcome?.done) toast(t('roles.removed', { name: removing.name }), back);
            return outcome?.done ?? false;
          }}
        />
      ) : null}
    </Page>
  );
}

function List({
  roles,
  all,
  catalogue,
  open,
}: {
  roles: readonly Role[];
  all: readonly RoleInfo[];
  catalogue: Catalogue;
  open: (name: string, role: Role) => void;
}) {
  const t = useText();
  const may = useMay();
  const { lacks, againstTaking } = useGrants(all);
  return (
    <ul className={css.roles}>
      {roles.map((role) => {
        const missing = lacks(role.permissions);
        return (
          <li key={role.name} className={css.role}>
            <Disclosure>
              {({ isExpanded }) => (
                <>
                  <div className={css.head}>
                    <Heading level={3} className={css.heading!}>
                      <AriaButton slot="trigger" className={css.trigger!}>
                        <ChevronRight size={16} aria-hidden data-open={isExpanded || undefined} />
                        <span>
                          <span className={css.name}>{role.name}</span>
                          <span className={css.note}>{role.description}</span>
                        </span>
                      </AriaButton>
                    </Heading>
                    <Badge>{t('roles.count', { count: role.permissions.length })}</Badge>
                    {role.builtIn || !may(MANAGE).allowed ? null : (
                      <ActionMenu label={t('roles.actionsOf', { name: role.name })}>
                        <ActionItem
                          need={TAKE}
                          unless={missing.length > 0 ? t('roles.lacks', { permissions: missing.join(', ') }) : null}
                          onAction={() => open('change', role)}
                        >
                          {t('roles.change')}
                        </ActionItem>
                        <ActionItem danger need={TAKE} unless={againstTaking([role.name])} onAction={() => open('remove', role)}>
                          {t('roles.remove')}
                        </ActionItem>
                      </ActionMenu>
                    )}
                  </div>
                  <DisclosurePanel className={css.panel!}>{isExpanded ? <Details role={role} catalogue={catalogue} /> : null}</DisclosurePanel>
                </>
              )}
            </Disclosure>
          </li>
        );
      })}
    </ul>
  );
}

function Details({ role, catalogue }: { role: Role; catalogue: Catalogue }) {
  const t = useText();
  const may = useMay();
  return (
    <div className={css.details}>
      <section>
        <h4>{t('roles.permits')}</h4>
        <ul className={css.permissions}>
          {role.permissions.map((name) => (
            <li key={name}>
              <code>{name}</code>
              <span className={css.note}>{catalogue.find((permission) => permission.name === name)?.description}</span>
            </li>
          ))}
        </ul>
      </section>
      {may({ permission: 'member:read' }).allowed ? <Holders role={role.name} /> : null}
    </div>
  );
}

function Holders({ role }: { role: string }) {
  const t = useText();
  const { id: organizationId } = useOrganization();
  const reading = useRead(RoleHoldersDocument, { organizationId, role });
  return (
    <section>
      <h4>{t('roles.holders')}</h4>
      {reading.state === 'loading' ? (
        <div aria-busy="true">
          <Skeleton lines={2} />
        </div>
      ) : reading.state === 'failed' ? (
        <Failed fault={reading.fault} retry={reading.retry} />
      ) : reading.data.organization?.members?.nodes.length ? (
        <>
          <ul className={css.holders}>
            {reading.data.organization.members.nodes.map(({ id, user }) => (
              <li key={id}>{user.name ?? user.email ?? t('members.erased')}</li>
            ))}
          </ul>
          <Link href={`${places.organization(organizationId, '/members')}?role=${encodeURIComponent(role)}`}>
            {t(reading.data.organization.members.pageInfo.hasNextPage ? 'roles.holders.all' : 'roles.holders.there')}
          </Link>
        </>
      ) : (
        <p className={css.note}>{t('roles.holders.none')}</p>
      )}
    </section>
  );
}

function DefineDialog({
  role,
  catalogue,
  command,
  close,
  act,
}: {
  /** The role that is changed; null for a new one. */
  role: Role | null;
  catalogue: Catalogue;
  command: Parameters<typeof FormDialog>[0]['command'];
  close: () => void;
  act: (role: { name: string; description: string; permissions: string[] }, reason?: string) => Promise<boolean>;
}) {
  const t = useText();
  const { lacks } = useGrants([]);
  const [chosen, setChosen] = useState<readonly string[]>(role?.permissions ?? ['organization:read']);
  return (
    <FormDialog
      title={role ? t('roles.change.of', { name: role.name }) : t('roles.define')}
      text={role ? t('roles.change.text') : t('roles.define.text')}
      action={t(role ? 'act.save' : 'roles.define.act')}
      command={command}
      close={close}
      fields={['name', 'description', 'permissions']}
      act={({ name = role?.name ?? '', description = '', reason }) => act({ name, description, permissions: [...chosen] }, reason)}
    >
      {role ? null : <Field name="name" label={t('roles.name')} hint={t('roles.name.hint')} refusals={command.refusals} isRequired autoFocus />}
      <Field
        name="description"
        label={t('roles.description')}
        defaultValue={role?.description ?? ''}
        refusals={command.refusals}
        isRequired
        autoFocus={role !== null}
      />
      <CheckList
        name="permissions"
        label={t('roles.permissions')}
        value={chosen}
        onChange={setChosen}
        options={catalogue.map(({ name, description }) => ({
          value: name,
          description,
          against: lacks([name]).length > 0 ? t('roles.permission.lacks') : null,
        }))}
        refusals={command.refusals}
      />
    </FormDialog>
  );
}

const NOBODY = '*';

/** A role in use is removed only with another one in its place. */
function RemoveDialog({
  role,
  roles,
  command,
  close,
  act,
}: {
  role: Role;
  roles: readonly RoleInfo[];
  command: Parameters<typeof FormDialog>[0]['command'];
  close: () => void;
  act: (replaceWith: string | null, reason?: string) => Promise<boolean>;
}) {
  const t = useText();
  const { againstGiving } = useGrants(roles);
  const { id: organizationId } = useOrganization();
  const holders = useRead(RoleHoldersDocument, { organizationId, role: role.name });
  const [replacement, setReplacement] = useState(NOBODY);
  const members = holders.data?.organization?.members;
  const count = members?.nodes.length ?? 0;
  // Ownership is not given in passing.
  const others = roles.filter(({ name }) => name !== role.name && name !== 'owner' && !againstGiving(name));
  return (
    <FormDialog
      danger
      title={t('roles.remove.of', { name: role.name })}
      text={
        !members
          ? t('roles.remove.text')
          : members.pageInfo.hasNextPage
            ? t('roles.remove.many', { count })
            : t('roles.remove.held', { count })
      }
      action={t('roles.remove')}
      command={command}
      close={close}
      fields={['replaceWith']}
      act={({ reason }) => act(replacement === NOBODY ? null : replacement, reason)}
    >
      <Choice
        labelled
        label={t('roles.replace')}
        value={replacement}
        onChange={setReplacement}
        options={[{ value: NOBODY, text: t('roles.replace.none') }, ...others.map(({ name }) => ({ value: name, text: name }))]}
      />
      <Refusals of={{ refusals: command.refusals.filter(({ path }) => path?.includes('replaceWith')), fault: null }} />
      <p className={css.note}>{t('roles.remove.name')}</p>
    </FormDialog>
  );
}
