import { type ReactNode, useEffect } from 'react';
import { Button } from '../parts/Button.tsx';
import { Skeleton } from '../parts/States.tsx';
import type { Config } from '../session/config.ts';
import type { SessionState } from '../session/session.ts';
import { useText } from '../texts/texts.tsx';
import { useSession } from './App.tsx';
import css from './shell.module.css';

/** What one sees without a session: each reason has its own page. */
export function Door({ config, state }: { config: Config | null; state: SessionState }) {
  const t = useText();
  const session = useSession();
  const local = config?.signIn.kind === 'local';
  const why = state.kind === 'out' ? state.why : null;
  const title = why === 'never' ? t(local ? 'signIn.local' : 'signIn.never') : why ? t(`signIn.${why}`) : t('signIn.starting');
  useEffect(() => {
    document.title = `${title} · tenancy`;
  }, [title]);
  if (state.kind !== 'out' || why === null) {
    return (
      <Frame title={title}>
        <Skeleton lines={2} />
      </Frame>
    );
  }
  const text = why === 'never' ? (local ? null : t('signIn.never.text')) : t(`signIn.${why}.text`);
  return (
    <Frame title={title} text={text}>
      {why === 'unreachable' ? (
        <Button look="primary" onPress={() => location.reload()}>
          {t('act.retry')}
        </Button>
      ) : why === 'nobody' ? null : local ? (
        <div>
          {why === 'code' ? null : <p>{t('signIn.local.text')}</p>}
          <p>
            <code className={css.command}>tenancy console</code>
          </p>
        </div>
      ) : (
        <Button look="primary" onPress={() => void session.leave()}>
          {t(why === 'never' ? 'signIn.button' : 'signIn.again')}
        </Button>
      )}
    </Frame>
  );
}

function Frame({ title, text, children }: { title: string; text?: string | null; children: ReactNode }) {
  return (
    <main className={css.alone}>
      <div className={css.door}>
        <div className={css.brand}>
          <img src="/console/icon.svg" alt="" width={24} height={24} />
          tenancy
        </div>
        <div role="status">
          <h1>{title}</h1>
          {text ? <p>{text}</p> : null}
        </div>
        {children}
      </div>
    </main>
  );
}
