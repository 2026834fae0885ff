import { useEffect, useState } from 'react';
import { useIntl } from 'react-intl';
import { useText } from '../texts/texts.tsx';
import css from './parts.module.css';

const STEPS: [Intl.RelativeTimeFormatUnit, number][] = [
  ['second', 60],
  ['minute', 60],
  ['hour', 24],
  ['day', 7],
  ['week', 4.345],
  ['month', 12],
  ['year', Infinity],
];

/** A moment by locale. `relative`: “3 minutes ago”, with the whole date at hand. */
export function Time({ at, relative = false, withTime = true }: { at: string; relative?: boolean; withTime?: boolean }) {
  const intl = useIntl();
  const [, tick] = useState(0);
  useEffect(() => {
    if (!relative) return;
    const timer = setInterval(() => tick((count) => count + 1), 60_000);
    return () => clearInterval(timer);
  }, [relative]);
  const whole = intl.formatDate(at, { dateStyle: 'medium', ...(withTime ? { timeStyle: 'short' } : {}) });
  if (!relative) return <time dateTime={at}>{whole}</time>;
  let value = (Date.parse(at) - Date.now()) / 1000;
  let unit: Intl.RelativeTimeFormatUnit = 'second';
  for (const [name, size] of STEPS) {
    unit = name;
    if (Math.abs(value) < size) break;
    value /= size;
  }
  return (
    <time dateTime={at} title={whole}>
      {intl.formatRelativeTime(unit === 'second' ? 0 : Math.round(value), unit, { numeric: 'auto' })}
    </time>
  );
}

export function Number({ value }: { value: number }) {
  return <>{useIntl().formatNumber(value)}</>;
}

/** A limit with its use, as a bar that is also a `meter` for screen readers. */
export function Meter({ label, used, maximum }: { label: string; used: number; maximum: number | null }) {
  const t = useText();
  const text = maximum === null ? t('limit.none', { used }) : t('limit.of', { used, maximum });
  const share = maximum === null ? 0 : maximum === 0 ? 1 : Math.min(used / maximum, 1);
  const tone = share >= 1 ? 'bad' : share >= 0.8 ? 'warn' : 'plain';
  return (
    <div className={css.meter}>
      <div className={css.meterHead} aria-hidden>
        <span>{label}</span>
        <span>{text}</span>
      </div>
      <div
        className={css.bar}
        role="meter"
        aria-label={label}
        aria-valuemin={0}
        aria-valuemax={maximum ?? Math.max(used, 1)}
        aria-valuenow={Math.min(used, maximum ?? used)}
        aria-valuetext={text}
      >
        <div className={css.fill} data-tone={tone} style={{ width: `${share * 100}%` }} />
      </div>
    </div>
  );
}
