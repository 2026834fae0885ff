import { useEffect, useState } from 'react';
import { useLocation } from 'wouter';
import { useCommand, useRead } from '../../api/hooks.ts';
import { AcceptInvitationDocument, DeclineInvitationDocument, type OwnInvitationFragment, OwnInvitationsDocument, PreviewDocument } from '../../generated/graphql.ts';
import { Button } from '../../parts/Button.tsx';
import { FormDialog, useDialog } from '../../parts/Dialogs.tsx';
import { Field } from '../../parts/Field.tsx';
import { Badge, Notice, Refusals } from '../../parts/Notice.tsx';
import { Card, Page } from '../../parts/Page.tsx';
import { PagedList } from '../../parts/PagedList.tsx';
import parts from '../../parts/parts.module.css';
import { Empty, Show, Skeleton } from '../../parts/States.tsx';
import { toast } from '../../parts/Toasts.tsx';
import { Time } from '../../parts/Values.tsx';
import { places } from '../../shell/places.ts';
import { useStanding } from '../../shell/standing.tsx';
import { useText } from '../../texts/texts.tsx';
import css from './mine.module.css';

type Named = { invitationId: string; token?: undefined } | { token: string; invitationId?: undefined };

/** The caller's own invitations. Needs no organization. */
export default function Mine() {
  const t = useText();
  const [, go] = useLocation();
  const { viewer } = useStanding();
  const [token, setToken] = useState(tokenOfLink);
  const accept = useCommand(AcceptInvitationDocument);
  const decline = useCommand(DeclineInvitationDocument);
  const dialog = useDialog<Named & { organization: string }>();
  const enter = useDialog();
  useEffect(() => {
    // Another link may be opened while the page is there.
    const changed = () => setToken((before) => tokenOfLink() ?? before);
    addEventListener('hashchange', changed);
    return () => removeEventListener('hashchange', changed);
  }, []);

  const join = async (named: Named) => {
    decline.reset();
    const outcome = await accept.run(named);
    if (!outcome?.done) return;
    const organization = outcome.payload.membership?.organization;
    toast(t('mine.accepted', { name: organization?.name ?? '' }));
    setToken(null);
    if (organization) go(places.organization(organization.id));
  };
  const turnDown = async (named: Named) => {
    accept.reset();
    const outcome = await decline.run(named);
    if (!outcome?.done) return false;
    toast(t('mine.declined'));
    setToken(null);
    return true;
  };
  const stops = [accept, decline].find(({ refusals, fault }) => refusals.length > 0 || fault);
  const declining = dialog.of('decline')?.subject;

  return (
    <Page
      title={t('mine.title')}
      text={t('mine.text', { email: viewer.user.email ?? t('mine.noAddress') })}
      actions={token ? null : <Button onPress={() => enter.open('token', null)}>{t('mine.enter')}</Button>}
    >
      {stops && !declining ? <Refusals of={stops} /> : null}
      {token ? (
        <Preview
          token={token}
          pending={accept.pending}
          onAccept={() => void join({ token })}
          onDecline={(organization) => dialog.open('decline', { token, organization })}
        />
      ) : null}
      <PagedList
        label={t('mine.title')}
        document={OwnInvitationsDocument}
        variables={{}}
        connection={({ viewer }) => viewer?.invitations}
        keep={({ state }: OwnInvitationFragment) => state === 'PENDING'}
        empty={<Empty title={t('mine.none')}>{viewer.user.email ? t('mine.none.text', { email: viewer.user.email }) : t('mine.none.noAddress')}</Empty>}
        columns={[
          {
            id: 'organization',
            title: t('mine.organization'),
            width: 'minmax(0, 1.5fr)',
            cell: ({ organizationName, invitedBy }) => (
              <span className={parts.main}>
                {organizationName}
                <span className={parts.sub}>{t('invitations.by', { name: invitedBy.label })}</span>
              </span>
            ),
          },
          { id: 'roles', title: t('invitations.roles'), cell: ({ roles }) => roles.join(', ') },
          { id: 'expires', title: t('invitations.expires'), cell: ({ expiresAt }) => <Time at={expiresAt} relative /> },
          {
            id: 'answer',
            title: t('mine.answer'),
            width: '12rem',
            cell: ({ id, organizationName }) => (
              <span className={css.answer}>
                <Button small look="primary" isPending={accept.pending} aria-label={t('mine.accept.of', { name: organizationName })} onPress={() => void join({ invitationId: id })}>
                  {t('mine.accept')}
                </Button>
                <Button
                  small
                  aria-label={t('mine.decline.of', { name: organizationName })}
                  onPress={() => dialog.open('decline', { invitationId: id, organization: organizationName })}
                >
                  {t('mine.decline')}
                </Button>
              </span>
            ),
          },
        ]}
      />
      {declining ? (
        <FormDialog
          danger
          title={t('mine.decline.of', { name: declining.organization })}
          text={t('mine.decline.text')}
          action={t('mine.decline')}
          command={decline}
          close={() => {
            decline.reset();
            dialog.close();
          }}
          act={() => turnDown(declining.token !== undefined ? { token: declining.token } : { invitationId: declining.invitationId })}
        />
      ) : null}
      {enter.of('token') ? (
        <FormDialog
          title={t('mine.enter')}
          action={t('mine.look')}
          command={{ refusals: [], fault: null, pending: false }}
          close={enter.close}
          act={({ token = '' }) => {
            // The whole link is as good.
            setToken(token.trim().replace(/^.*#invitation=/, '') || null);
            return Promise.resolve(true);
          }}
        >
          <Field name="token" label={t('mine.token')} isRequired autoFocus />
        </FormDialog>
      ) : null}
    </Page>
  );
}

/** What the holder of a token may know before they answer. */
function Preview({
  token,
  pending,
  onAccept,
  onDecline,
}: {
  token: string;
  pending: boolean;
  onAccept: () => void;
  onDecline: (organization: string) => void;
}) {
  const t = useText();
  const { viewer } = useStanding();
  const reading = useRead(PreviewDocument, { token });
  return (
    <Card title={t('mine.link')}>
      <Show reading={reading} skeleton={<Skeleton lines={2} />}>
        {({ invitationPreview: invitation }) =>
          !invitation ? (
            <Notice tone="warn">
              <p>{t('mine.link.unknown')}</p>
            </Notice>
          ) : (
            <div className={css.preview}>
              <div>
                <strong>{invitation.organizationName}</strong>{' '}
                {invitation.state === 'PENDING' ? null : <Badge>{t(`invitations.state.${invitation.state}`)}</Badge>}
                <p className={parts.sub}>
                  {t('mine.link.for', { email: invitation.email ?? '—' })} {t('mine.link.until')} <Time at={invitation.expiresAt} />
                </p>
              </div>
              {invitation.state === 'PENDING' ? (
                <span className={css.answer}>
                  <Button look="primary" isPending={pending} onPress={onAccept}>
                    {t('mine.accept')}
                  </Button>
                  <Button onPress={() => onDecline(invitation.organizationName)}>{t('mine.decline')}</Button>
                </span>
              ) : null}
              {invitation.email && viewer.user.email?.toLowerCase() !== invitation.email.toLowerCase() ? (
                <Notice tone="warn">
                  <p>{t('mine.link.other', { email: viewer.user.email ?? t('mine.noAddress') })}</p>
                </Notice>
              ) : null}
            </div>
          )
        }
      </Show>
    </Card>
  );
}

/** The token of the link that was opened. It is taken out of the address at once, before anything can keep it. */
function tokenOfLink(): string | null {
  const token = new URLSearchParams(location.hash.slice(1)).get('invitation');
  if (token) history.replaceState(null, '', location.pathname + location.search);
  return token;
}
