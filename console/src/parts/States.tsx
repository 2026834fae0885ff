import { CircleAlert, Inbox, Lock, SearchX } from 'lucide-react';
import { Component, type ComponentType, type ReactNode } from 'react';
import type { Fault } from '@tenancy/client';
import type { Reading } from '../api/hooks.ts';
import { useText } from '../texts/texts.tsx';
import { Button } from './Button.tsx';
import css from './parts.module.css';

/** The frame of the states: an icon, a sentence, what to do. */
export function State({
  icon: Icon,
  title,
  children,
  actions,
  role,
  alone = false,
}: {
  icon: ComponentType<{ size: number; 'aria-hidden': true }>;
  title: string;
  children?: ReactNode;
  actions?: ReactNode;
  role?: 'alert';
  /** The whole page is this state, so its sentence is the page's heading. */
  alone?: boolean;
}) {
  const Heading = alone ? 'h1' : 'h2';
  return (
    <div className={css.state} role={role}>
      <Icon size={28} aria-hidden />
      <Heading>{title}</Heading>
      {children ? <p>{children}</p> : null}
      {actions ? <div className={css.stateActions}>{actions}</div> : null}
    </div>
  );
}

/** Nothing there yet: say what would be, and offer to make it. */
export function Empty({ title, children, action }: { title: string; children?: ReactNode; action?: ReactNode }) {
  return (
    <State icon={Inbox} title={title} actions={action}>
      {children}
    </State>
  );
}

export function Forbidden({ alone = false }: { alone?: boolean }) {
  const t = useText();
  return (
    <State icon={Lock} title={t('failed.forbidden')} alone={alone}>
      {t('failed.forbidden.text')}
    </State>
  );
}

export function NotFound({ alone = false }: { alone?: boolean }) {
  const t = useText();
  return (
    <State
      icon={SearchX}
      title={t('failed.notFound')}
      alone={alone}
      actions={<Button onPress={() => location.assign('/console/')}>{t('failed.home')}</Button>}
    >
      {t('failed.notFound.text')}
    </State>
  );
}

/** A read that failed: forbidden and not found are states of their own. */
export function Failed({ fault, retry, alone = false }: { fault: Fault; retry?: () => void; alone?: boolean }) {
  const t = useText();
  if (fault.code === 'FORBIDDEN') return <Forbidden alone={alone} />;
  if (fault.code === 'NOT_FOUND') return <NotFound alone={alone} />;
  return (
    <State
      icon={CircleAlert}
      role="alert"
      title={t('failed.read')}
      alone={alone}
      actions={retry ? <Button onPress={retry}>{t('act.retry')}</Button> : null}
    >
      {fault.code === 'NETWORK' ? t('failed.network') : fault.message}
    </State>
  );
}

/** Grey lines where content will be. It keeps quiet for screen readers: `Reading` says that it loads. */
export function Skeleton({ lines = 3 }: { lines?: number }) {
  return (
    <div className={css.skeleton} aria-hidden>
      {Array.from({ length: lines }, (_, index) => (
        <div key={index} className={css.bone} />
      ))}
    </div>
  );
}

/** The content of a read, or the state that it is in. */
export function Show<Data>({
  reading,
  skeleton,
  children,
}: {
  reading: Reading<Data>;
  skeleton?: ReactNode;
  children: (data: Data) => ReactNode;
}) {
  if (reading.state === 'loading') return <div aria-busy="true">{skeleton ?? <Skeleton lines={6} />}</div>;
  if (reading.state === 'failed') return <Failed fault={reading.fault} retry={reading.retry} />;
  return <>{children(reading.data)}</>;
}

/** Catches what breaks while a screen is drawn, a chunk that cannot be loaded too. */
export class ErrorBoundary extends Component<{ children: ReactNode }, { broken: boolean }> {
  override state = { broken: false };
  static getDerivedStateFromError() {
    return { broken: true };
  }
  override render() {
    return this.state.broken ? <Broken /> : this.props.children;
  }
}

function Broken() {
  const t = useText();
  return (
    <State
      icon={CircleAlert}
      role="alert"
      title={t('failed.broken')}
      alone
      actions={<Button onPress={() => location.reload()}>{t('failed.reload')}</Button>}
    >
      {t('failed.broken.text')}
    </State>
  );
}
