import { useIntl } from 'react-intl';
import { useText } from '../../texts/texts.tsx';
import { arrived } from './EndpointState.tsx';
import css from './webhooks.module.css';

const BINS = 40;

/** Attempts over time: what arrived stands above the line, what failed hangs below it. */
export function AttemptChart({ attempts }: { attempts: readonly { at: string; status?: number | null }[] }) {
  const t = useText();
  const intl = useIntl();
  const times = attempts.map(({ at }) => Date.parse(at));
  const from = Math.min(...times);
  const until = Math.max(...times);
  const width = Math.max((until - from) / BINS, 1);
  const bins = Array.from({ length: BINS }, () => ({ good: 0, bad: 0 }));
  attempts.forEach(({ status }, index) => {
    const bin = bins[Math.min(BINS - 1, Math.floor(((times[index] ?? from) - from) / width))];
    if (bin) bin[arrived(status) ? 'good' : 'bad']++;
  });
  const good = attempts.filter(({ status }) => arrived(status)).length;
  const bad = attempts.length - good;
  const highest = Math.max(...bins.map((bin) => bin.good));
  const deepest = Math.max(...bins.map((bin) => bin.bad));
  const unit = 100 / Math.max(highest + deepest, 1);
  const line = highest * unit;
  const moment = (at: number) => intl.formatDate(at, { dateStyle: 'short', timeStyle: 'short' });
  return (
    <figure>
      <svg
        className={css.chart}
        viewBox={`0 0 ${BINS * 10} 100`}
        preserveAspectRatio="none"
        role="img"
        aria-label={t('webhooks.chart.says', { good, bad, from: moment(from), until: moment(until) })}
      >
        {bins.map((bin, index) => (
          <g key={index}>
            <rect className={css.good} x={index * 10 + 1} width={8} y={line - bin.good * unit} height={bin.good * unit} />
            <rect className={css.bad} x={index * 10 + 1} width={8} y={line} height={bin.bad * unit} />
          </g>
        ))}
        <line className={css.axis} x1={0} x2={BINS * 10} y1={line} y2={line} />
      </svg>
      <figcaption className={css.legend}>
        <span>{moment(from)}</span>
        <span>
          <span className={css.key} aria-hidden />
          {t('webhooks.chart.good', { good })}
          <span className={css.key} data-bad aria-hidden />
          {t('webhooks.chart.bad', { bad })}
        </span>
        <span>{moment(until)}</span>
      </figcaption>
    </figure>
  );
}
