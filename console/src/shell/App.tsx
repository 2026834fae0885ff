import { createContext, useContext, useMemo, useSyncExternalStore } from 'react';
import { I18nProvider } from 'react-aria-components';
import { useIntl } from 'react-intl';
import { Provider } from 'urql';
import { Router } from 'wouter';
import { createApi } from '../api/api.ts';
import { ApiContext } from '../api/hooks.ts';
import { ErrorBoundary } from '../parts/States.tsx';
import { Toasts } from '../parts/Toasts.tsx';
import type { Config } from '../session/config.ts';
import type { Session } from '../session/session.ts';
import { Door } from './Door.tsx';
import { Shell } from './Shell.tsx';

const SessionContext = createContext<Session | null>(null);
export function useSession(): Session {
  const session = useContext(SessionContext);
  if (!session) throw new Error('there is no session');
  return session;
}

export function App({ config, session }: { config: Config | null; session: Session }) {
  const { locale } = useIntl();
  const state = useSyncExternalStore(session.subscribe, () => session.state);
  return (
    <I18nProvider locale={locale}>
      <ErrorBoundary>
        <SessionContext.Provider value={session}>
          {config && state.kind === 'in' ? <Inside config={config} session={session} /> : <Door config={config} state={state} />}
          <Toasts />
        </SessionContext.Provider>
      </ErrorBoundary>
    </I18nProvider>
  );
}

/** Lives as long as the session: whatever the cache holds goes with it. */
function Inside({ config, session }: { config: Config; session: Session }) {
  const api = useMemo(() => createApi(config, session), [config, session]);
  return (
    <ApiContext.Provider value={api}>
      <Provider value={api.graphql}>
        <Router base="/console">
          <Shell />
        </Router>
      </Provider>
    </ApiContext.Provider>
  );
}
