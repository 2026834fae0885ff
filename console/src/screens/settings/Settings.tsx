import { useState } from 'react';
import { Link, useLocation } from 'wouter';
import { type Command, useCommand, useRead } from '../../api/hooks.ts';
import {
  AcceptOwnershipDocument,
  DeleteOrganizationDocument,
  LeaveOrganizationDocument,
  OfferOwnershipDocument,
  RestoreOrganizationDocument,
  SettingsDocument,
  SettingsDocumentDocument,
  type SettingsQuery,
  SubmitForVerificationDocument,
  UpdateOrganizationDocument,
  UpdateOrganizationSettingsDocument,
  WithdrawOwnershipOfferDocument,
} from '../../generated/graphql.ts';
import { Button, PermissionButton } from '../../parts/Button.tsx';
import { Choice } from '../../parts/Choice.tsx';
import { afterDialog, FormDialog, useDialog } from '../../parts/Dialogs.tsx';
import { Field } from '../../parts/Field.tsx';
import { useGrants } from '../../parts/grants.ts';
import { Badge, Notice, Refusals } from '../../parts/Notice.tsx';
import { Card, Page } from '../../parts/Page.tsx';
import { Failed, Show, Skeleton } from '../../parts/States.tsx';
import { toast } from '../../parts/Toasts.tsx';
import { Time } from '../../parts/Values.tsx';
import { places } from '../../shell/places.ts';
import { statusKey, useOrganization, useStanding } from '../../shell/standing.tsx';
import { toneOf } from '../../shell/tones.ts';
import { useText } from '../../texts/texts.tsx';
import css from './settings.module.css';

type Organization = NonNullable<SettingsQuery['organization']>;
type Policies = Partial<Record<(typeof POLICIES)[number], 'keep' | 'revoke'>>;
/** The keys of the one document that the service itself goes by, and what holds without them. */
const POLICIES = ['invitationsOfRemovedMembers', 'tokensOfRemovedMembers'] as const;
const DEFAULTS = { invitationsOfRemovedMembers: 'revoke', tokensOfRemovedMembers: 'keep' } as const;

export default function Settings() {
  const t = useText();
  const { id: organizationId } = useOrganization();
  const reading = useRead(SettingsDocument, { organizationId });
  return (
    <Page title={t('settings.title')} text={t('settings.text')}>
      <Show reading={reading}>{({ organization }) => (organization ? <Content organization={organization} /> : null)}</Show>
    </Page>
  );
}

function Content({ organization }: { organization: Organization }) {
  return (
    <div className={css.cards}>
      {organization.lifecycle === 'DELETED' ? <Deleted organization={organization} /> : null}
      <Profile organization={organization} />
      <Verification organization={organization} />
      <Ownership organization={organization} />
      <PoliciesCard organization={organization} />
      <Documents organization={organization} />
      <Endings organization={organization} />
    </div>
  );
}

function Profile({ organization }: { organization: Organization }) {
  const t = useText();
  const update = useCommand(UpdateOrganizationDocument);
  const dialog = useDialog<Organization>();
  const subject = dialog.of('edit')?.subject;
  return (
    <Card
      title={t('settings.profile')}
      actions={
        <PermissionButton need={{ permission: 'organization:update', capability: 'EDIT_PROFILE' }} onPress={() => dialog.open('edit', organization)}>
          {t('settings.profile.change')}
        </PermissionButton>
      }
    >
      <dl className={css.facts}>
        <div>
          <dt>{t('settings.name')}</dt>
          <dd>{organization.name}</dd>
        </div>
        <div>
          <dt>{t('settings.slug')}</dt>
          <dd>
            <code>{organization.slug}</code>
          </dd>
        </div>
        <div>
          <dt>{t('settings.contact')}</dt>
          <dd>{organization.contactEmail ?? t('settings.contact.none')}</dd>
        </div>
        <div>
          <dt>{t('settings.id')}</dt>
          <dd>
            <code>{organization.id}</code>
          </dd>
        </div>
      </dl>
      {subject ? (
        <FormDialog
          title={t('settings.profile.change')}
          action={t('act.save')}
          command={update}
          close={() => {
            update.reset();
            dialog.close();
          }}
          fields={['name', 'slug', 'contactEmail']}
          act={async ({ name = '', slug = '', contactEmail = '', reason }) => {
            const outcome = await update.run({
              organizationId: subject.id,
              // Others may have changed it meanwhile: then the service says so instead of overwriting.
              expectedVersion: subject.version,
              reason,
              ...(name === subject.name ? {} : { name }),
              ...(slug === subject.slug ? {} : { slug }),
              ...(contactEmail === (subject.contactEmail ?? '') ? {} : { contactEmail: contactEmail || null }),
            });
            if (outcome?.done) {
              toast(t('settings.saved'), {
                reason,
                undo: (reason) =>
                  update.run({
                    organizationId: subject.id,
                    name: subject.name,
                    slug: subject.slug,
                    contactEmail: subject.contactEmail,
                    reason,
                  }),
              });
            }
            return outcome?.done ?? false;
          }}
        >
          <Field name="name" label={t('settings.name')} defaultValue={subject.name} refusals={update.refusals} isRequired autoFocus />
          <Field
            name="slug"
            label={t('settings.slug')}
            hint={t('settings.slug.hint')}
            defaultValue={subject.slug}
            refusals={update.refusals}
            isRequired
          />
          <Field
            name="contactEmail"
            type="email"
            label={t('settings.contact')}
            hint={t('settings.contact.hint')}
            defaultValue={subject.contactEmail ?? ''}
            refusals={update.refusals}
          />
        </FormDialog>
      ) : null}
    </Card>
  );
}

function Verification({ organization }: { organization: Organization }) {
  const t = useText();
  const submit = useCommand(SubmitForVerificationDocument);
  const dialog = useDialog();
  const open = organization.capabilities.includes('SUBMIT_FOR_VERIFICATION');
  return (
    <Card
      title={t('settings.verification')}
      actions={
        <>
          <Badge tone={toneOf(organization)}>{t(statusKey(organization))}</Badge>
          {open ? (
            <PermissionButton
              look="primary"
              need={{ permission: 'organization:submit', capability: 'SUBMIT_FOR_VERIFICATION' }}
              onPress={() => dialog.open('submit', null)}
            >
              {t('settings.submit')}
            </PermissionButton>
          ) : null}
        </>
      }
    >
      <p className={css.say}>
        {organization.verification === 'VERIFIED'
          ? t('settings.verification.done')
          : open
            ? t('settings.verification.open')
            : t('settings.verification.waits')}
      </p>
      {organization.verificationReason && organization.verification !== 'VERIFIED' ? (
        <p className={css.say}>{t('settings.verification.reason', { reason: organization.verificationReason })}</p>
      ) : null}
      {dialog.of('submit') ? (
        <FormDialog
          title={t('settings.submit')}
          text={t('settings.submit.text')}
          action={t('settings.submit.act')}
          command={submit}
          close={() => {
            submit.reset();
            dialog.close();
          }}
          act={async ({ reason }) => {
            const outcome = await submit.run({ organizationId: organization.id, expectedVersion: organization.version, reason });
            if (outcome?.done) toast(t('settings.submitted'));
            return outcome?.done ?? false;
          }}
        />
      ) : null}
    </Card>
  );
}

/** The open offer, for owners and its recipient. */
function Ownership({ organization }: { organization: Organization }) {
  const t = useText();
  const { actsAsOperator } = useStanding();
  const { mine, isOwner } = useGrants([]);
  const accept = useCommand(AcceptOwnershipDocument);
  const withdraw = useCommand(WithdrawOwnershipOfferDocument);
  const offerAgain = useCommand(OfferOwnershipDocument);
  const dialog = useDialog();
  const offer = organization.ownershipOffer;
  const { id: organizationId } = organization;
  if (!offer && !isOwner) return null;
  const forMe = offer !== null && offer !== undefined && offer.membershipId === mine?.id;
  const stops = dialog.current ? null : [withdraw].find(({ refusals, fault }) => refusals.length > 0 || fault);
  const withdrawOffer = async (reason?: string) => {
    accept.reset();
    const outcome = await withdraw.run({ organizationId, reason });
    // Nobody but an owner can offer it again.
    const membershipId = forMe ? null : offer?.membershipId;
    const back = membershipId ? { reason, undo: (reason?: string) => offerAgain.run({ membershipId, reason }) } : {};
    if (outcome?.done) toast(t(forMe ? 'settings.offer.declined' : 'settings.offer.withdrawn'), back);
    return outcome?.done ?? false;
  };
  return (
    <Card
      title={t('settings.ownership')}
      actions={
        !offer ? null : (
          <div className={css.row}>
            {forMe ? (
              <Button look="primary" onPress={() => dialog.open('accept', null)}>
                {t('settings.offer.accept')}
              </Button>
            ) : null}
            {forMe || isOwner ? (
              <Button
                isPending={withdraw.pending}
                onPress={() => (actsAsOperator ? dialog.open('withdraw', null) : void withdrawOffer())}
              >
                {t(forMe ? 'settings.offer.decline' : 'settings.offer.withdraw')}
              </Button>
            ) : null}
          </div>
        )
      }
    >
      {stops ? <Refusals of={stops} /> : null}
      {offer ? (
        <p className={css.say}>
          {t(forMe ? 'settings.offer.forYou' : 'settings.offer.open', { name: offer.offeredBy.label })} <Time at={offer.offeredAt} relative />
        </p>
      ) : (
        <p className={css.say}>
          {t('settings.ownership.text')} <Link href={places.organization(organizationId, '/members')}>{t('settings.ownership.members')}</Link>
        </p>
      )}
      {dialog.of('accept') ? (
        <FormDialog
          title={t('settings.offer.accept')}
          text={t('settings.offer.accept.text', { name: organization.name })}
          action={t('settings.offer.accept')}
          command={accept}
          close={() => {
            accept.reset();
            dialog.close();
          }}
          act={async ({ reason }) => {
            const outcome = await accept.run({ organizationId, reason });
            if (outcome?.done) toast(t('settings.offer.accepted', { name: organization.name }));
            return outcome?.done ?? false;
          }}
        />
      ) : null}
      {dialog.of('withdraw') ? (
        <FormDialog
          title={t('settings.offer.withdraw')}
          action={t('settings.offer.withdraw')}
          command={withdraw}
          close={dialog.close}
          act={({ reason }) => withdrawOffer(reason)}
        />
      ) : null}
    </Card>
  );
}

function PoliciesCard({ organization }: { organization: Organization }) {
  const t = useText();
  const save = useCommand(UpdateOrganizationSettingsDocument);
  const dialog = useDialog<Organization>();
  const subject = dialog.of('policies')?.subject;
  const now = { ...DEFAULTS, ...(organization.policies as Policies | null) };
  const before = subject?.policies ?? {};
  return (
    <Card
      title={t('settings.policies')}
      text={t('settings.policies.text')}
      actions={
        <PermissionButton need={{ permission: 'organization:update', capability: 'EDIT_PROFILE' }} onPress={() => dialog.open('policies', organization)}>
          {t('settings.policies.change')}
        </PermissionButton>
      }
    >
      <dl className={css.facts}>
        {POLICIES.map((key) => (
          <div key={key}>
            <dt>{t(`settings.policy.${key}`)}</dt>
            <dd>{t(`settings.policy.${now[key]}`)}</dd>
          </div>
        ))}
      </dl>
      {subject ? (
        <PoliciesDialog
          now={now}
          command={save}
          close={() => {
            save.reset();
            dialog.close();
          }}
          act={async (value, reason) => {
            const outcome = await save.run({
              organizationId: subject.id,
              namespace: 'policies',
              value,
              expectedVersion: subject.version,
              reason,
            });
            if (outcome?.done) {
              toast(t('settings.saved'), {
                reason,
                undo: (reason) => save.run({ organizationId: subject.id, namespace: 'policies', value: before, reason }),
              });
            }
            return outcome?.done ?? false;
          }}
        />
      ) : null}
    </Card>
  );
}

function PoliciesDialog({
  now,
  command,
  close,
  act,
}: {
  now: Required<Policies>;
  command: Parameters<typeof FormDialog>[0]['command'];
  close: () => void;
  act: (value: Policies, reason?: string) => Promise<boolean>;
}) {
  const t = useText();
  const [chosen, setChosen] = useState(now);
  return (
    <FormDialog
      title={t('settings.policies.change')}
      action={t('act.save')}
      command={command}
      close={close}
      act={({ reason }) => act(chosen, reason)}
    >
      {POLICIES.map((key) => (
        <Choice
          key={key}
          labelled
          label={t(`settings.policy.${key}`)}
          value={chosen[key]}
          onChange={(value) => setChosen((before) => ({ ...before, [key]: value }))}
          options={(['keep', 'revoke'] as const).map((value) => ({ value, text: t(`settings.policy.${value}`) }))}
        />
      ))}
    </FormDialog>
  );
}

/** Documents of other namespaces are the clients' own, and free. */
function Documents({ organization }: { organization: Organization }) {
  const t = useText();
  const { id: organizationId } = useOrganization();
  const dialog = useDialog<string>();
  const ask = useDialog();
  const save = useCommand(UpdateOrganizationSettingsDocument);
  const known = new Set<string>();
  for (const { data } of organization.auditTrail?.nodes ?? []) {
    const { namespace, value } = data as { namespace?: string; value?: unknown };
    if (!namespace || namespace === 'policies') continue;
    if (value === null || value === undefined) known.delete(namespace);
    else known.add(namespace);
  }
  const subject = dialog.of('document')?.subject;
  const openButton = (
    <Button onPress={() => ask.open('namespace', null)}>
      {t('settings.documents.open')}
    </Button>
  );
  return (
    <Card title={t('settings.documents')} text={t('settings.documents.text')} actions={openButton}>
      {known.size > 0 ? (
        <ul className={css.documents}>
          {[...known].sort().map((namespace) => (
            <li key={namespace}>
              <code>{namespace}</code>
              <Button small onPress={() => dialog.open('document', namespace)} aria-label={t('settings.documents.show.of', { namespace })}>
                {t('settings.documents.show')}
              </Button>
            </li>
          ))}
        </ul>
      ) : (
        <p className={css.say}>{t(organization.auditTrail ? 'settings.documents.none' : 'settings.documents.unknown')}</p>
      )}
      {ask.of('namespace') ? (
        <FormDialog
          title={t('settings.documents.open')}
          action={t('settings.documents.show')}
          command={IDLE}
          close={ask.close}
          act={({ namespace = '' }) => {
            afterDialog(() => dialog.open('document', namespace.trim()));
            return Promise.resolve(true);
          }}
        >
          <Field name="namespace" label={t('settings.namespace')} hint={t('settings.namespace.hint')} isRequired autoFocus />
        </FormDialog>
      ) : null}
      {subject ? (
        <DocumentDialog
          organizationId={organizationId}
          namespace={subject}
          command={save}
          close={() => {
            save.reset();
            dialog.close();
          }}
        />
      ) : null}
    </Card>
  );
}

function DocumentDialog({
  organizationId,
  namespace,
  command,
  close,
}: {
  organizationId: string;
  namespace: string;
  command: Command<
    import('../../generated/graphql.ts').UpdateOrganizationSettingsMutation,
    import('../../generated/graphql.ts').UpdateOrganizationSettingsInput
  >;
  close: () => void;
}) {
  const t = useText();
  const { permissions, actsAsOperator } = useStanding();
  const { capabilities } = useOrganization();
  const reading = useRead(SettingsDocumentDocument, { organizationId, namespace });
  const [wrong, setWrong] = useState<string | null>(null);
  /** The document as it was when the dialog first showed it: that one is edited. */
  const [shown, setShown] = useState<{ text: string; version: number } | null>(null);
  const found = reading.data?.organization;
  if (!shown && found && reading.state === 'ready' && !reading.refreshing) {
    setShown({ text: found.settings == null ? '{}' : JSON.stringify(found.settings, null, 2), version: found.version });
  }
  const editable = (actsAsOperator || permissions.has('organization:update')) && capabilities.includes('EDIT_PROFILE');
  return (
    <FormDialog
      title={t('settings.document', { namespace })}
      text={t(editable ? 'settings.document.text' : 'settings.document.readOnly')}
      action={editable && shown ? t('act.save') : null}
      command={command}
      close={close}
      fields={['value']}
      act={async ({ value = '', reason }) => {
        setWrong(null);
        let parsed: unknown;
        try {
          parsed = JSON.parse(value);
        } catch (error) {
          setWrong(error instanceof Error ? error.message : String(error));
          return false;
        }
        const outcome = await command.run({ organizationId, namespace, value: parsed, expectedVersion: shown?.version ?? null, reason });
        if (outcome?.done && shown) {
          const before: unknown = JSON.parse(shown.text);
          toast(t('settings.saved'), { reason, undo: (reason) => command.run({ organizationId, namespace, value: before, reason }) });
        }
        return outcome?.done ?? false;
      }}
    >
      {reading.state === 'failed' ? (
        <Failed fault={reading.fault} retry={reading.retry} />
      ) : !shown ? (
        <div aria-busy="true">
          <Skeleton lines={4} />
        </div>
      ) : (
        <div className={css.document}>
          <Field
            name="value"
            label={t('settings.document.value')}
            rows={10}
            defaultValue={shown.text}
            isReadOnly={!editable}
            refusals={command.refusals}
          />
          {wrong ? (
            <Notice tone="bad" role="alert">
              <p>{t('settings.document.wrong', { why: wrong })}</p>
            </Notice>
          ) : null}
        </div>
      )}
    </FormDialog>
  );
}

function Endings({ organization }: { organization: Organization }) {
  const t = useText();
  const [, go] = useLocation();
  const dialog = useDialog();
  const leave = useCommand(LeaveOrganizationDocument);
  const remove = useCommand(DeleteOrganizationDocument);
  const restore = useCommand(RestoreOrganizationDocument);
  const { mine } = useGrants([]);
  const { id: organizationId, name } = organization;
  const close = () => {
    for (const command of [leave, remove]) command.reset();
    dialog.close();
  };
  return (
    <Card title={t('settings.endings')}>
      <ul className={css.endings}>
        {mine ? (
          <li>
            <div>
              <h3>{t('settings.leave')}</h3>
              <p className={css.say}>{t('settings.leave.text')}</p>
            </div>
            <PermissionButton look="danger" need={{ membersOnly: true, capability: 'LEAVE' }} onPress={() => dialog.open('leave', null)}>
              {t('settings.leave.act')}
            </PermissionButton>
          </li>
        ) : null}
        {organization.lifecycle === 'DELETED' ? null : (
          <li>
            <div>
              <h3>{t('settings.delete')}</h3>
              <p className={css.say}>{t('settings.delete.text')}</p>
            </div>
            <PermissionButton
              look="danger"
              whenForbidden="explain"
              need={{ permission: 'organization:delete', capability: 'DELETE' }}
              onPress={() => dialog.open('delete', null)}
            >
              {t('settings.delete.act')}
            </PermissionButton>
          </li>
        )}
      </ul>
      {dialog.of('leave') ? (
        <FormDialog
          danger
          title={t('settings.leave.of', { name })}
          text={t('settings.leave.ask')}
          action={t('settings.leave.act')}
          command={leave}
          close={close}
          act={async ({ reason }) => {
            const outcome = await leave.run({ organizationId, reason });
            if (!outcome?.done) return false;
            toast(t('settings.left', { name }));
            go(places.home);
            return true;
          }}
        />
      ) : null}
      {dialog.of('delete') ? (
        <FormDialog
          danger
          title={t('settings.delete.of', { name })}
          text={t('settings.delete.ask')}
          action={t('settings.delete.act')}
          command={remove}
          close={close}
          act={async ({ reason }) => {
            const outcome = await remove.run({ organizationId, expectedVersion: organization.version, reason });
            if (!outcome?.done) return false;
            toast(t('settings.deleted', { name }), { reason, undo: (reason) => restore.run({ organizationId, reason }) });
            return true;
          }}
        />
      ) : null}
    </Card>
  );
}

function Deleted({ organization }: { organization: Organization }) {
  const t = useText();
  const { actsAsOperator } = useStanding();
  const restore = useCommand(RestoreOrganizationDocument);
  const dialog = useDialog();
  const run = async (reason?: string) => {
    const outcome = await restore.run({ organizationId: organization.id, reason });
    if (outcome?.done) toast(t('settings.restored', { name: organization.name }));
    return outcome?.done ?? false;
  };
  return (
    <Card
      title={t('settings.gone')}
      actions={
        <PermissionButton
          look="primary"
          whenForbidden="explain"
          need={{ permission: 'organization:delete', capability: 'RESTORE' }}
          isPending={restore.pending}
          onPress={() => (actsAsOperator ? dialog.open('restore', null) : void run())}
        >
          {t('settings.restore')}
        </PermissionButton>
      }
    >
      <p className={css.say}>
        {t('settings.gone.text')} {organization.purgeAt ? <Time at={organization.purgeAt} /> : null}
      </p>
      {dialog.of('restore') ? (
        <FormDialog title={t('settings.restore')} action={t('settings.restore')} command={restore} close={dialog.close} act={({ reason }) => run(reason)} />
      ) : (
        <Refusals of={restore} />
      )}
    </Card>
  );
}

const IDLE = { refusals: [], fault: null, pending: false };
