import { Menu as MenuIcon } from 'lucide-react';
import { Suspense, useEffect, useMemo, useRef, useState } from 'react';
import { Dialog, Modal, ModalOverlay } from 'react-aria-components';
import { Route, Switch, useLocation } from 'wouter';
import { keepOpen } from '../api/cache.ts';
import { useLast, useRead } from '../api/hooks.ts';
import { useLiveUpdates } from '../api/live.ts';
import { ShellDocument } from '../generated/graphql.ts';
import { Button } from '../parts/Button.tsx';
import { Notice } from '../parts/Notice.tsx';
import { ErrorBoundary, Failed, Forbidden, NotFound, Skeleton } from '../parts/States.tsx';
import { screens } from '../screens/index.ts';
import type { Screen } from '../screens/screen.ts';
import { useText } from '../texts/texts.tsx';
import { Home } from './Home.tsx';
import { Navigation } from './Navigation.tsx';
import css from './shell.module.css';
import { type Standing, StandingProvider, useMay, useStanding } from './standing.tsx';

export function Shell() {
  const t = useText();
  const [location] = useLocation();
  const organizationId = /^\/o\/([^/]+)/.exec(location)?.[1] ?? null;
  const reading = useRead(ShellDocument, { organizationId: organizationId ?? '', inside: organizationId !== null });
  // The frame stays while another organization loads.
  const data = useLast(reading.data);
  const standing = useMemo<Standing | null>(() => {
    if (!data?.viewer) return null;
    const organization = data.organization?.id === organizationId ? (data.organization ?? null) : null;
    const member = data.viewer.memberships.nodes.some(
      ({ organization: own, state }) => own?.id === organizationId && state === 'ACTIVE',
    );
    return {
      viewer: data.viewer,
      organization,
      permissions: new Set(data.permissions ?? []),
      actsAsOperator: organization !== null && data.viewer.operator && !member,
    };
  }, [data, organizationId]);
  useEffect(() => keepOpen(organizationId), [organizationId]);
  useLiveUpdates(organizationId, standing?.organization != null && (standing.actsAsOperator || standing.permissions.has('audit:read')), reading.retry);

  const main = useRef<HTMLElement>(null);
  const [drawer, setDrawer] = useState(false);
  const first = useRef(true);
  useEffect(() => {
    // After a step to another page the keyboard goes on at its content.
    if (first.current) first.current = false;
    else main.current?.focus({ preventScroll: true });
    window.scrollTo(0, 0);
  }, [location]);

  if (!standing) {
    return (
      <main className={css.alone} aria-busy={reading.state === 'loading'}>
        {reading.state === 'failed' ? <Failed fault={reading.fault} retry={reading.retry} alone /> : <Skeleton lines={0} />}
      </main>
    );
  }
  const missing = organizationId !== null && standing.organization === null && reading.state !== 'loading' && !(reading.state === 'ready' && reading.refreshing);
  return (
    <StandingProvider value={standing}>
      <div className={css.shell} data-plane={location.startsWith('/operate') ? 'operate' : 'organization'}>
        <a className={css.skip} href="#main" onClick={() => main.current?.focus()}>
          {t('nav.skip')}
        </a>
        <Navigation />
        <header className={css.top}>
          <Button look="quiet" icon aria-label={t('nav.open')} onPress={() => setDrawer(true)}>
            <MenuIcon size={18} aria-hidden />
          </Button>
          <span className={css.name}>{standing.organization?.name ?? 'tenancy'}</span>
        </header>
        <ModalOverlay className={css.drawer!} isOpen={drawer} onOpenChange={setDrawer} isDismissable>
          <Modal className={css.drawerPanel!}>
            <Dialog aria-label={t('nav.label')}>
              <Navigation onGo={() => setDrawer(false)} />
            </Dialog>
          </Modal>
        </ModalOverlay>
        <main id="main" ref={main} className={css.main} tabIndex={-1}>
          <div className={css.inner}>
            {standing.actsAsOperator ? (
              <Notice tone="operator">
                <p>{t('operator.notice')}</p>
              </Notice>
            ) : null}
            <ErrorBoundary key={location}>
              {missing ? reading.state === 'failed' ? <Failed fault={reading.fault} retry={reading.retry} alone /> : <NotFound alone /> : <Screens />}
            </ErrorBoundary>
          </div>
        </main>
      </div>
    </StandingProvider>
  );
}

const PLANES: Record<Screen['plane'], string> = { organization: '/o/:organizationId', operate: '/operate', person: '' };

function Screens() {
  return (
    <Suspense fallback={<Skeleton lines={6} />}>
      <Switch>
        <Route path="/">
          <Home />
        </Route>
        {screens.map((screen) => (
          <Route key={screen.plane + screen.path} path={PLANES[screen.plane] + screen.path}>
            {(params) => <Opened screen={screen} params={params as Record<string, string>} />}
          </Route>
        ))}
        <Route>
          <NotFound alone />
        </Route>
      </Switch>
    </Suspense>
  );
}

/** A screen for those who may see it. What it needs of an organization is known once that is read. */
function Opened({ screen, params }: { screen: Screen; params: Record<string, string> }) {
  const may = useMay();
  const { organization } = useStanding();
  useEffect(() => void screen.preload(), [screen]);
  if (screen.plane === 'organization' && !organization) return <Skeleton lines={6} />;
  const { permission, operator, membersOnly } = screen.need;
  const allowed = may({ permission, operator, membersOnly });
  if (!allowed.allowed) return <Forbidden alone />;
  return <screen.component key={organization?.id} params={params} />;
}
