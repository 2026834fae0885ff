import { useEffect, useRef, useState } from 'react';
import { Link } from 'wouter';
import { useReadAgain } from '../../api/again.ts';
import { useRead } from '../../api/hooks.ts';
import { type QueueCaseFragment, QueueDocument, QueueOneDocument, type QueueRowFragment } from '../../generated/graphql.ts';
import { Button } from '../../parts/Button.tsx';
import { Choice } from '../../parts/Choice.tsx';
import { EventList } from '../../parts/Event.tsx';
import { Field } from '../../parts/Field.tsx';
import { Filters } from '../../parts/Filters.tsx';
import { Badge, Notice, Refusals } from '../../parts/Notice.tsx';
import { Card, Page } from '../../parts/Page.tsx';
import { PagedList } from '../../parts/PagedList.tsx';
import { PAGE_SIZE } from '../../parts/pages.ts';
import parts from '../../parts/parts.module.css';
import { Empty, Failed, Skeleton } from '../../parts/States.tsx';
import { toast } from '../../parts/Toasts.tsx';
import { Time } from '../../parts/Values.tsx';
import { places } from '../../shell/places.ts';
import { statusKey } from '../../shell/standing.tsx';
import { toneOf } from '../../shell/tones.ts';
import { useText } from '../../texts/texts.tsx';
import { BACK, type Review, useReviews } from '../organization/reviews.ts';
import css from './queue.module.css';

type Waiting = 'PENDING' | 'WAITLISTED';
const DECISIONS: Record<Waiting, readonly Review[]> = {
  PENDING: ['verify', 'waitlist', 'reopen', 'reject'],
  WAITLISTED: ['reopen', 'block'],
};
const READ_AGAIN_MS = 20_000;

export default function Queue() {
  const t = useText();
  const [verification, setVerification] = useState<Waiting>('PENDING');
  const [chosen, setChosen] = useState<string | null>(null);
  const first = { verification, first: PAGE_SIZE, after: null };
  // The same request as the list's first page: it is sent once.
  const reading = useRead(QueueDocument, first);
  const again = useReadAgain(QueueDocument, first, READ_AGAIN_MS);
  const rows = reading.data?.organizations?.nodes.filter((row) => row.verification === verification) ?? [];
  const lead = reading.data?.lead?.nodes[0];
  const current = chosen ?? rows[0]?.id ?? null;
  const other = useRead(QueueOneDocument, { id: current ?? '' }, { pause: current === null || current === lead?.id });
  const shown = current === lead?.id ? lead : other.data?.organization?.id === current ? other.data?.organization : null;
  const place = useRef<HTMLDivElement>(null);
  const moved = useRef(false);
  useEffect(() => {
    if (moved.current && shown) {
      moved.current = false;
      place.current?.focus();
    }
  }, [shown]);
  const pick = (id: string | null) => {
    moved.current = true;
    setChosen(id);
    window.scrollTo(0, 0);
  };
  const decided = (id: string) => {
    const at = rows.findIndex((row) => row.id === id);
    const next = at < 0 ? null : (rows[at + 1]?.id ?? rows.find((row) => row.id !== id)?.id ?? null);
    pick(next);
    void again();
  };
  const none = reading.state === 'ready' && rows.length === 0;
  return (
    <Page title={t('queue.title')} text={t('queue.text')}>
      <Filters>
        <Choice
          label={t('queue.which')}
          value={verification}
          onChange={(value) => {
            setChosen(null);
            setVerification(value);
          }}
          options={(['PENDING', 'WAITLISTED'] as const).map((value) => ({ value, text: t(`verification.${value}`) }))}
        />
      </Filters>
      {none ? null : (
        <div ref={place} className={css.case} tabIndex={-1} role="group" aria-label={shown?.name ?? t('queue.title')}>
          {shown ? (
            <Case key={shown.id} organization={shown} verification={verification} decided={decided} />
          ) : other.state === 'failed' ? (
            <Failed fault={other.fault} retry={other.retry} />
          ) : reading.state === 'failed' ? null : (
            <Card title={t('queue.now')}>
              <div aria-busy="true">
                <Skeleton lines={6} />
              </div>
            </Card>
          )}
        </div>
      )}
      <PagedList
        label={t('queue.title')}
        document={QueueDocument}
        variables={{ verification }}
        connection={({ organizations }) => organizations}
        keep={(row: QueueRowFragment) => row.verification === verification}
        onOpen={({ id }) => pick(id)}
        empty={
          <Empty
            title={t(`queue.empty.${verification}`)}
            action={verification === 'PENDING' ? <Button onPress={() => setVerification('WAITLISTED')}>{t('queue.toWaitlist')}</Button> : null}
          >
            {t('queue.empty.text')}
          </Empty>
        }
        columns={[
          {
            id: 'name',
            title: t('queue.name'),
            width: 'minmax(0, 2fr)',
            cell: ({ id, name, slug }) => (
              <span className={parts.main}>
                <span>
                  {name} {id === current ? <Badge tone="accent">{t('queue.open')}</Badge> : null}
                </span>
                <span className={parts.sub}>{slug}</span>
              </span>
            ),
          },
          { id: 'contact', title: t('queue.contact'), cell: ({ contactEmail }) => contactEmail ?? '—' },
          { id: 'created', title: t('queue.created'), cell: ({ createdAt }) => <Time at={createdAt} relative /> },
          {
            id: 'actions',
            title: t('queue.actions'),
            width: '6rem',
            align: 'end',
            cell: ({ id, name }) => (
              <Button small onPress={() => pick(id)} aria-label={t('queue.lookAt', { name })}>
                {t('queue.look')}
              </Button>
            ),
          },
        ]}
      />
    </Page>
  );
}

function Case({
  organization,
  verification,
  decided,
}: {
  organization: QueueCaseFragment;
  verification: Waiting;
  decided: (id: string) => void;
}) {
  const t = useText();
  const { id, name } = organization;
  const reviews = useReviews();
  const [reason, setReason] = useState('');
  const [last, setLast] = useState<Review>('verify');
  const command = reviews[last];
  const events = [...(organization.auditTrail?.nodes ?? [])].reverse();
  const submitted = events.find(({ action }) => action === 'org.submitted');
  const owners = organization.members?.nodes ?? [];
  const pending = Object.values(reviews).some((one) => one.pending);

  const decide = async (what: Review) => {
    if (pending) return;
    setLast(what);
    const outcome = await reviews[what].run({ organizationId: id, reason, expectedVersion: organization.version });
    if (!outcome?.done) return;
    const back = verification === 'PENDING' ? BACK[what] : undefined;
    toast(
      t(`queue.${what as 'verify'}.done`, { name }),
      back ? { reason, undo: (reason = '') => reviews[back].run({ organizationId: id, reason }) } : {},
    );
    decided(id);
  };

  return (
    <Card title={name} actions={<Badge tone={toneOf(organization)}>{t(statusKey(organization))}</Badge>}>
      <div className={css.columns}>
        <div className={css.know}>
          <dl className={css.facts}>
            <div>
              <dt>{t('queue.slug')}</dt>
              <dd>
                <code>{organization.slug}</code>
              </dd>
            </div>
            <div>
              <dt>{t('queue.waits')}</dt>
              <dd>{submitted ? <Time at={submitted.recordedAt} relative /> : '—'}</dd>
            </div>
            <div>
              <dt>{t('queue.created')}</dt>
              <dd>
                <Time at={organization.createdAt} />
              </dd>
            </div>
            <div>
              <dt>{t('queue.contact')}</dt>
              <dd>{organization.contactEmail ?? t('queue.noContact')}</dd>
            </div>
            <div>
              <dt>{t('queue.plan')}</dt>
              <dd>{organization.plan}</dd>
            </div>
            <div>
              <dt>{t('queue.members')}</dt>
              <dd>{organization.limits.find((limit) => limit.name === 'members')?.used ?? 0}</dd>
            </div>
          </dl>
          <section>
            <h3 className={css.small}>{t('queue.owners')}</h3>
            {owners.length === 0 ? <p className={css.quiet}>{t('queue.noOwner')}</p> : null}
            <ul className={css.owners}>
              {owners.map(({ id: membership, user }) => (
                <li key={membership}>
                  <Link href={places.operate(`/users/${user.id}`)}>{user.name ?? user.email ?? user.id}</Link>
                  {user.name && user.email ? <span className={css.quiet}> {user.email}</span> : null}
                  {user.state && user.state !== 'ACTIVE' ? <Badge tone="warn">{t(`queue.user.${user.state}`)}</Badge> : null}
                </li>
              ))}
            </ul>
          </section>
          {organization.verificationReason ? (
            <Notice>
              <p>{t('queue.before', { reason: organization.verificationReason })}</p>
            </Notice>
          ) : null}
          <section>
            <h3 className={css.small}>{t('queue.history')}</h3>
            <EventList events={events} />
          </section>
          <p className={css.links}>
            <Link href={places.operate(`/organizations/${id}`)}>{t('queue.asOperator')}</Link>
            <Link href={places.organization(id)}>{t('queue.asMember')}</Link>
          </p>
        </div>
        <form className={css.decide} aria-label={t('queue.decide')} onSubmit={(event) => event.preventDefault()}>
          <h3 className={css.small}>{t('queue.decide')}</h3>
          <Field
            name="reason"
            label={t('act.reason')}
            hint={t('queue.reason.hint')}
            rows={3}
            value={reason}
            onChange={setReason}
            refusals={command.refusals}
            isRequired
          />
          <Refusals of={command} except={['reason']} />
          <ul className={css.decisions}>
            {DECISIONS[verification].map((what) => (
              <li key={what}>
                <Button
                  look={what === 'verify' ? 'primary' : what === 'reject' || what === 'block' ? 'danger' : 'plain'}
                  isPending={reviews[what].pending}
                  onPress={() => void decide(what)}
                  aria-describedby={`queue-${what}`}
                >
                  {t(`queue.${what as 'verify'}`)}
                </Button>
                <span id={`queue-${what}`} className={css.quiet}>
                  {t(`queue.${what as 'verify'}.text`)}
                </span>
              </li>
            ))}
          </ul>
        </form>
      </div>
    </Card>
  );
}
