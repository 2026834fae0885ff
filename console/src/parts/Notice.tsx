import { AlertTriangle, CircleX, Info, ShieldAlert, CircleCheck } from 'lucide-react';
import type { ReactNode } from 'react';
import type { Fault, Refusal } from '@tenancy/client';
import { useText } from '../texts/texts.tsx';
import css from './parts.module.css';

export type Tone = 'plain' | 'good' | 'warn' | 'bad' | 'accent' | 'operator';

const ICONS = { plain: Info, accent: Info, good: CircleCheck, warn: AlertTriangle, bad: CircleX, operator: ShieldAlert };

export function Notice({ tone = 'plain', role, children }: { tone?: Tone; role?: 'alert' | 'status'; children: ReactNode }) {
  const Icon = ICONS[tone];
  return (
    <div className={css.notice} data-tone={tone} role={role}>
      <Icon size={16} aria-hidden />
      <div>{children}</div>
    </div>
  );
}

export function Badge({ tone = 'plain', children }: { tone?: Tone; children: ReactNode }) {
  return (
    <span className={css.badge} data-tone={tone}>
      {children}
    </span>
  );
}

/**
 * Why a command did nothing, where the person acted. Refusals about a field that is on the screen stand at that field:
 * name those in `except`.
 */
export function Refusals({
  of: { refusals, fault },
  except = [],
}: {
  of: { refusals: readonly Refusal[]; fault: Fault | null };
  except?: readonly string[];
}) {
  const t = useText();
  const here = refusals.filter(({ path }) => !except.some((field) => isAbout(path, field)));
  if (here.length === 0 && !fault) return null;
  return (
    <Notice tone="bad" role="alert">
      {here.map((refusal) => (
        <p key={refusal.message}>
          {refusal.message}
          {refusal.code === 'ENTITY_STATUS' && !refusal.message.includes(refusal.remedy) ? ` ${refusal.remedy}` : null}
        </p>
      ))}
      {fault ? <p>{fault.code === 'NETWORK' ? t('failed.network') : fault.message}</p> : null}
    </Notice>
  );
}

/** Whether a refusal's path leads to this field of the input: `["input", "slug"]` or `["slug"]`. */
export function isAbout(path: readonly string[] | null, field: string): boolean {
  const inner = path?.[0] === 'input' ? path.slice(1) : path;
  return inner?.[0] === field;
}
