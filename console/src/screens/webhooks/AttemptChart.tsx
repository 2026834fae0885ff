import { useIntl } from 'react-intl';
import { Chart } from '../../parts/Chart.tsx';
import { useText } from '../../texts/texts.tsx';
import { arrived } from './EndpointState.tsx';

const MOST_BARS = 40;
const MINUTE_MS = 60_000;
const DAY_MS = 86_400_000;

/** Attempts over time: what arrived stands above the line, what failed hangs below it. */
export function AttemptChart({ attempts }: { attempts: readonly { at: string; status?: number | null }[] }) {
  const t = useText();
  const intl = useIntl();
  const times = attempts.map(({ at }) => Date.parse(at));
  const from = Math.min(...times);
  const until = Math.max(...times);
  const span = until - from;
  const width = Math.max(MINUTE_MS, Math.ceil(span / MOST_BARS));
  const moment = (at: number) => intl.formatDate(at, { dateStyle: 'short', timeStyle: 'short' });
  const tick = (at: number) => intl.formatDate(at, span < DAY_MS ? { timeStyle: 'short' } : { day: 'numeric', month: 'short' });
  const bars = Array.from({ length: Math.min(MOST_BARS, Math.floor(span / width) + 1) }, (_, index) => {
    const at = from + index * width;
    return { title: moment(at), tick: tick(at), above: 0, below: 0 };
  });
  attempts.forEach(({ status }, index) => {
    const bar = bars[Math.min(bars.length - 1, Math.floor(((times[index] ?? from) - from) / width))];
    if (bar) bar[arrived(status) ? 'above' : 'below']++;
  });
  const good = attempts.filter(({ status }) => arrived(status)).length;
  return (
    <Chart
      says={t('webhooks.chart.says', { good, bad: attempts.length - good, from: moment(from), until: moment(until) })}
      along={t('webhooks.chart.from')}
      aboveTitle={t('webhooks.chart.good')}
      belowTitle={t('webhooks.chart.bad')}
      bars={bars}
    />
  );
}
