import { useState } from 'react';
import { Link } from 'wouter';
import { useReadAgain } from '../../api/again.ts';
import { useCommand, useRead } from '../../api/hooks.ts';
import {
  ApproveUserDocument,
  EraseSubjectDocument,
  EventsThatNameDocument,
  OperatedMembershipsDocument,
  OperatedUserDocument,
  type OperatedUserQuery,
  type OperatedUserStateFragment,
  ReinstateUserDocument,
  RevokeUserDocument,
  type UserState,
} from '../../generated/graphql.ts';
import { Button } from '../../parts/Button.tsx';
import { useDialog } from '../../parts/Dialogs.tsx';
import { EventList } from '../../parts/Event.tsx';
import { Field } from '../../parts/Field.tsx';
import { Badge, Notice } from '../../parts/Notice.tsx';
import { Card, Page } from '../../parts/Page.tsx';
import { ReasonDialog } from '../../parts/ReasonDialog.tsx';
import { Empty, NotFound, Show } from '../../parts/States.tsx';
import { toast } from '../../parts/Toasts.tsx';
import { Time } from '../../parts/Values.tsx';
import { places } from '../../shell/places.ts';
import { statusKey } from '../../shell/standing.tsx';
import { toneOf, toneOfUser } from '../../shell/tones.ts';
import { useText } from '../../texts/texts.tsx';
import type { ScreenProps } from '../screen.ts';
import css from './user.module.css';

type Review = 'approve' | 'revoke' | 'reinstate';
type Person = OperatedUserStateFragment;
interface Left {
  namedIn: readonly string[];
  more: boolean;
}

const OFFERED: Record<UserState, readonly Review[]> = {
  ACTIVE: ['revoke'],
  PENDING: ['approve', 'revoke'],
  REVOKED: ['reinstate'],
  ERASED: [],
};

export default function User({ params }: ScreenProps) {
  const t = useText();
  const id = params.userId ?? '';
  const reading = useRead(OperatedUserDocument, { id });
  const node = reading.data?.node;
  const user = node?.__typename === 'User' ? node : null;
  return (
    <Page
      title={user ? (user.name ?? user.email ?? t('user.nameless')) : t('user.title')}
      text={<Link href={places.operate('/users')}>{t('user.all')}</Link>}
    >
      <Show reading={reading}>{(data) => (user ? <Content user={user} data={data} /> : <NotFound />)}</Show>
    </Page>
  );
}

function Content({ user, data }: { user: Person; data: OperatedUserQuery }) {
  const t = useText();
  const { id } = user;
  const state = user.state ?? 'ACTIVE';
  const name = user.name ?? user.email ?? id;
  const again = useReadAgain(OperatedUserDocument, { id });
  const reviews = { approve: useCommand(ApproveUserDocument), revoke: useCommand(RevokeUserDocument), reinstate: useCommand(ReinstateUserDocument) };
  const erase = useCommand(EraseSubjectDocument);
  const dialog = useDialog();
  const [wrongName, setWrongName] = useState(false);
  const [left, setLeft] = useState<Left | null>(null);
  const events = [...(data.about?.nodes ?? [])].reverse();

  const act = async (what: Review, reason: string) => {
    const outcome = await reviews[what].run({ userId: id, reason });
    if (!outcome?.done) return false;
    const back = ({ revoke: 'reinstate', reinstate: 'revoke' } as const)[what as 'revoke'];
    toast(
      t(`user.${what}.done`, { name }),
      // A revocation of somebody who waited leads to ACTIVE by `reinstate`, and not back.
      back && state !== 'PENDING'
        ? {
            reason,
            undo: async (reason = '') => {
              const outcome = await reviews[back].run({ userId: id, reason });
              void again();
              return outcome;
            },
          }
        : {},
    );
    void again();
    return true;
  };

  return (
    <>
      {left ? <LeftBehind left={left} /> : null}
      <Card title={t('user.state')} actions={<Badge tone={toneOfUser[state]}>{t(`user.state.${state}`)}</Badge>}>
        <div className={css.stack}>
          <dl className={css.facts}>
            <div>
              <dt>{t('user.name')}</dt>
              <dd>{user.name ?? '—'}</dd>
            </div>
            <div>
              <dt>{t('user.email')}</dt>
              <dd>{user.email ?? '—'}</dd>
            </div>
            <div>
              <dt>{t('user.id')}</dt>
              <dd>
                <code>{id}</code>
              </dd>
            </div>
          </dl>
          {state === 'ERASED' ? <p className={css.quiet}>{t('user.erased.text')}</p> : null}
          <ul className={css.acts}>
            {OFFERED[state].map((what) => (
              <li key={what}>
                <Button onPress={() => dialog.open(what, null)} aria-describedby={`user-${what}`}>
                  {t(`user.${what}`)}
                </Button>
                <span id={`user-${what}`} className={css.quiet}>
                  {t(`user.${what}.text`)}
                </span>
              </li>
            ))}
            {state === 'ERASED' ? null : (
              <li>
                <Button
                  aria-describedby="user-erase"
                  onPress={() => {
                    setWrongName(false);
                    dialog.open('erase', null);
                  }}
                >
                  {t('user.erase')}
                </Button>
                <span id="user-erase" className={css.quiet}>
                  {t('user.erase.text')}
                </span>
              </li>
            )}
          </ul>
        </div>
      </Card>
      <Card title={t('user.memberships')} text={t('user.memberships.text')}>
        <Memberships ids={[...new Set((data.joined?.nodes ?? []).map(({ subjectId }) => subjectId))]} />
      </Card>
      <Card title={t('user.events')}>
        {events.length > 0 ? <EventList events={events} /> : <Empty title={t('user.events.none')} />}
      </Card>
      {(['approve', 'revoke', 'reinstate'] as const).map((what) =>
        dialog.of(what) ? (
          <ReasonDialog
            key={what}
            title={`${t(`user.${what}`)}: ${name}`}
            text={t(`user.${what}.text`)}
            action={t(`user.${what}`)}
            danger={what === 'revoke'}
            command={reviews[what]}
            close={() => {
              reviews[what].reset();
              dialog.close();
            }}
            act={({ reason = '' }) => act(what, reason)}
          />
        ) : null,
      )}
      {dialog.of('erase') ? (
        <ReasonDialog
          title={t('user.erase.title', { name })}
          text={
            <ul className={css.says}>
              {(['names', 'everywhere', 'memberships', 'stays', 'holds', 'forEver'] as const).map((one) => (
                <li key={one}>{t(`user.erase.says.${one}`)}</li>
              ))}
            </ul>
          }
          action={t('user.erase')}
          danger
          command={erase}
          hint={t('user.erase.reason')}
          close={() => {
            erase.reset();
            dialog.close();
          }}
          act={async ({ confirm = '', reason = '' }) => {
            const wrong = confirm.trim() !== id;
            setWrongName(wrong);
            if (wrong) return false;
            const outcome = await erase.run({ subject: { userId: id }, reason });
            if (!outcome?.done) return false;
            setLeft({ namedIn: outcome.payload.namedIn, more: outcome.payload.namedInMore });
            toast(t('user.erase.done'));
            void again();
            return true;
          }}
        >
          <Field name="confirm" label={t('user.erase.confirm')} hint={id} isRequired autoFocus />
          {wrongName ? (
            <Notice tone="bad" role="alert">
              <p>{t('user.erase.wrong')}</p>
            </Notice>
          ) : null}
        </ReasonDialog>
      ) : null}
    </>
  );
}

/** What the erasure found and did not change: it is for the operator to decide about. */
function LeftBehind({ left: { namedIn, more } }: { left: Left }) {
  const t = useText();
  const reading = useRead(EventsThatNameDocument, { ids: [...namedIn] }, { pause: namedIn.length === 0 });
  return (
    <Card title={t('user.left')} text={t('user.left.text')}>
      <div className={css.stack}>
        {namedIn.length === 0 ? (
          <Notice tone="good" role="status">
            <p>{t('user.left.none')}</p>
          </Notice>
        ) : (
          <Show reading={reading}>
            {({ nodes }) => <EventList events={(nodes ?? []).flatMap((node) => (node && 'action' in node ? [node] : []))} />}
          </Show>
        )}
        {more ? (
          <Notice tone="warn">
            <p>{t('user.left.more')}</p>
          </Notice>
        ) : null}
      </div>
    </Card>
  );
}

function Memberships({ ids }: { ids: string[] }) {
  const t = useText();
  const reading = useRead(OperatedMembershipsDocument, { ids }, { pause: ids.length === 0 });
  if (ids.length === 0) return <p className={css.quiet}>{t('user.memberships.none')}</p>;
  return (
    <Show reading={reading}>
      {({ nodes }) => (
        <ul className={css.list}>
          {(nodes ?? []).map((node) =>
            node?.__typename === 'Membership' ? (
              <li key={node.id}>
                {node.organization ? (
                  <>
                    <Link href={places.operate(`/organizations/${node.organization.id}`)}>{node.organization.name}</Link>
                    <Badge tone={toneOf(node.organization)}>{t(statusKey(node.organization))}</Badge>
                  </>
                ) : (
                  <code>{node.id}</code>
                )}
                <span>{node.roles.join(', ')}</span>
                <span className={css.quiet}>
                  {t(`user.membership.${node.state}`)} · <Time at={node.joinedAt} withTime={false} />
                </span>
              </li>
            ) : null,
          )}
        </ul>
      )}
    </Show>
  );
}
