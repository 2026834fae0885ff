import { type FormEvent, useState } from 'react';
import { Dialog, Heading, Modal, ModalOverlay } from 'react-aria-components';
import { Link } from 'wouter';
import { type AuditAction, type AuditFilter, EveryEventDocument, type EveryEventLineFragment } from '../../generated/graphql.ts';
import { Button } from '../../parts/Button.tsx';
import { Choice } from '../../parts/Choice.tsx';
import { useEventSentence } from '../../parts/Event.tsx';
import { Field } from '../../parts/Field.tsx';
import { newestFirst } from '../../parts/newest.ts';
import { Page } from '../../parts/Page.tsx';
import { PagedList } from '../../parts/PagedList.tsx';
import parts from '../../parts/parts.module.css';
import { Empty } from '../../parts/States.tsx';
import { Time } from '../../parts/Values.tsx';
import { places } from '../../shell/places.ts';
import { useText } from '../../texts/texts.tsx';
import css from './everyEvent.module.css';

const AREAS = {
  ALL: null,
  OPERATORS: [
    'ORG_VERIFIED',
    'ORG_REJECTED',
    'ORG_WAITLISTED',
    'ORG_REOPENED',
    'ORG_REVIEW_RESTARTED',
    'ORG_BLOCKED',
    'ORG_UNBLOCKED',
    'ORG_ACTIVATED',
    'ORG_DEACTIVATED',
    'ORG_PLAN_CHANGED',
    'ORG_LIMIT_SET',
    'ORG_LEGAL_HOLD_SET',
    'ORG_LEGAL_HOLD_RELEASED',
    'USER_APPROVED',
    'USER_REVOKED',
    'USER_REINSTATED',
    'USER_ERASED',
  ],
  PEOPLE: ['USER_REGISTERED', 'USER_HELD', 'USER_APPROVED', 'USER_REVOKED', 'USER_REINSTATED', 'USER_PROFILE_CHANGED', 'USER_ERASED'],
  MEMBERS: [
    'MEMBER_INVITED',
    'MEMBER_JOINED',
    'MEMBER_LEFT',
    'MEMBER_REMOVED',
    'MEMBER_SUSPENDED',
    'MEMBER_REINSTATED',
    'MEMBER_ROLES_CHANGED',
    'INVITATION_ACCEPTED',
    'INVITATION_DECLINED',
    'INVITATION_EXPIRED',
    'INVITATION_RESENT',
    'INVITATION_REVOKED',
    'OWNERSHIP_OFFERED',
    'OWNERSHIP_ACCEPTED',
    'OWNERSHIP_OFFER_WITHDRAWN',
  ],
  RESOURCES: [
    'PROJECT_CREATED',
    'PROJECT_ARCHIVED',
    'PROJECT_UNARCHIVED',
    'PROJECT_DELETED',
    'PROJECT_RESTORED',
    'PROJECT_RENAMED',
    'ROLE_DEFINED',
    'ROLE_CHANGED',
    'ROLE_REMOVED',
    'TOKEN_CREATED',
    'TOKEN_REVOKED',
    'TOKEN_EXPIRED',
  ],
  WEBHOOKS: ['WEBHOOK_CREATED', 'WEBHOOK_CHANGED', 'WEBHOOK_DELETED', 'WEBHOOK_DISABLED', 'WEBHOOK_ENABLED', 'WEBHOOK_FAILING', 'WEBHOOK_REPLAYED'],
  ENDS: ['ORG_DELETED', 'ORG_RESTORED', 'ORG_PURGED', 'ORG_PRUNED', 'PROJECT_PURGED', 'USER_ERASED', 'INVITEE_ERASED'],
  LIMITS: ['LIMIT_REACHED'],
} as const satisfies Record<string, readonly AuditAction[] | null>;
type Area = keyof typeof AREAS;

export default function EveryEvent() {
  const t = useText();
  const sentence = useEventSentence();
  const [area, setArea] = useState<Area>('ALL');
  const [rest, setRest] = useState<AuditFilter>({});
  const [shown, setShown] = useState<EveryEventLineFragment | null>(null);
  const [form, setForm] = useState(0);
  const actions = AREAS[area];
  const filtered = actions !== null || Object.keys(rest).length > 0;
  const apply = (event: FormEvent<HTMLFormElement>) => {
    event.preventDefault();
    const values = new FormData(event.currentTarget);
    const of = (name: string) => String(values.get(name) ?? '').trim();
    setRest({
      ...(of('actor') ? { actorIds: [of('actor')] } : {}),
      ...(of('subject') ? { subjectIds: [of('subject')] } : {}),
      ...(of('since') ? { since: new Date(of('since')).toISOString() } : {}),
      ...(of('until') ? { until: new Date(of('until')).toISOString() } : {}),
    });
  };
  const clear = () => {
    setArea('ALL');
    setRest({});
    setForm((count) => count + 1);
  };
  return (
    <Page title={t('everyEvent.title')} text={t('everyEvent.text')}>
      <form key={form} className={css.bar} role="search" aria-label={t('everyEvent.apply')} onSubmit={apply}>
        <Choice
          labelled
          label={t('everyEvent.area')}
          value={area}
          onChange={setArea}
          options={(Object.keys(AREAS) as Area[]).map((value) => ({ value, text: t(`everyEvent.area.${value}`) }))}
        />
        <Field name="actor" label={t('everyEvent.actor')} placeholder="usr_…" />
        <Field name="subject" label={t('everyEvent.subject')} placeholder="org_…" />
        <Field name="since" type="datetime-local" label={t('everyEvent.since')} />
        <Field name="until" type="datetime-local" label={t('everyEvent.until')} />
        <div className={css.buttons}>
          <Button type="submit">{t('everyEvent.apply')}</Button>
          {filtered ? (
            <Button look="quiet" onPress={clear}>
              {t('everyEvent.clear')}
            </Button>
          ) : null}
        </div>
      </form>
      <PagedList
        label={t('everyEvent.title')}
        document={EveryEventDocument}
        variables={{ filter: { ...(actions ? { actions: [...actions] } : {}), ...rest } }}
        connection={({ auditTrail }) => newestFirst<EveryEventLineFragment>(auditTrail)}
        onOpen={(event) => setShown(event)}
        empty={<Empty title={t('everyEvent.none')} action={filtered ? <Button onPress={clear}>{t('everyEvent.clear')}</Button> : null} />}
        columns={[
          {
            id: 'what',
            title: t('everyEvent.what'),
            width: 'minmax(0, 2.4fr)',
            cell: (event) => (
              <span>
                {sentence(event)}
                <span className={parts.sub}> {event.action}</span>
              </span>
            ),
          },
          {
            id: 'where',
            title: t('everyEvent.where'),
            cell: ({ organizationId, subjectId }) =>
              organizationId ? (
                <Link href={places.operate(`/organizations/${organizationId}`)}>{t('everyEvent.open')}</Link>
              ) : subjectId.startsWith('usr_') ? (
                <Link href={places.operate(`/users/${subjectId}`)}>{t('everyEvent.openUser')}</Link>
              ) : (
                '—'
              ),
          },
          { id: 'when', title: t('everyEvent.when'), width: 'minmax(0, 0.7fr)', cell: ({ recordedAt }) => <Time at={recordedAt} relative /> },
          {
            id: 'actions',
            title: t('everyEvent.details'),
            width: '5.5rem',
            align: 'end',
            cell: (event) => (
              <Button small aria-label={t('everyEvent.show', { action: event.action })} onPress={() => setShown(event)}>
                {t('everyEvent.details')}
              </Button>
            ),
          },
        ]}
      />
      {shown ? (
        <ModalOverlay className={parts.overlay!} isOpen isDismissable onOpenChange={(open) => !open && setShown(null)}>
          <Modal className={parts.modal!}>
            <Dialog className={parts.dialog!}>
              <Heading slot="title" level={2}>
                {sentence(shown)}
              </Heading>
              <p className={parts.dialogText}>
                <Time at={shown.recordedAt} />
              </p>
              <pre className={css.json} tabIndex={0} role="region" aria-label={t('everyEvent.details')}>
                {JSON.stringify(shown, (name, value: unknown) => (name === '__typename' ? undefined : value), 2)}
              </pre>
              <div className={parts.dialogFoot}>
                <Button onPress={() => setShown(null)} autoFocus>
                  {t('act.close')}
                </Button>
              </div>
            </Dialog>
          </Modal>
        </ModalOverlay>
      ) : null}
    </Page>
  );
}
