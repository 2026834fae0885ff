import { lazy, Suspense, useId } from 'react';
import { useText } from '../texts/texts.tsx';
import css from './chart.module.css';
import { Number } from './Values.tsx';

const BarChart = lazy(() => import('./BarChart.tsx'));

export interface ChartProps {
  /** The chart in a sentence. It is the drawing's name, too. */
  says: string;
  /** What the bars go along, such as days: the head of the table's first column. */
  along: string;
  /** What is counted. With `belowTitle`, another count hangs below the line. */
  aboveTitle: string;
  belowTitle?: string;
  /** `tick` is the short form of `title`, for below the bar. */
  bars: readonly { title: string; tick: string; above: number; below?: number }[];
}

/** Counts as bars, in a sentence, and as a table that says the same as the bars. */
export function Chart({ says, ...props }: ChartProps) {
  const t = useText();
  const id = useId();
  const { along, aboveTitle, belowTitle, bars } = props;
  return (
    <div className={css.chart}>
      <p id={id} className={css.says}>
        {says}
      </p>
      <Suspense fallback={<div className={css.frame} />}>
        <BarChart {...props} labelledBy={id} />
      </Suspense>
      {belowTitle ? (
        <p className={css.legend}>
          <span>
            <span className={css.key} aria-hidden />
            {t('chart.above', { title: aboveTitle })}
          </span>
          <span>
            <span className={css.key} data-below aria-hidden />
            {t('chart.below', { title: belowTitle })}
          </span>
        </p>
      ) : null}
      <details className={css.table}>
        <summary>{t('chart.table')}</summary>
        <div className={css.scroll} tabIndex={0} role="group" aria-label={t('chart.table')}>
          <table>
            <thead>
              <tr>
                <th scope="col">{along}</th>
                <th scope="col">{aboveTitle}</th>
                {belowTitle ? <th scope="col">{belowTitle}</th> : null}
              </tr>
            </thead>
            <tbody>
              {bars.map(({ title, above, below = 0 }) => (
                <tr key={title}>
                  <th scope="row">{title}</th>
                  {(belowTitle ? [above, below] : [above]).map((count, index) => (
                    <td key={index}>
                      <Number value={count} />
                    </td>
                  ))}
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      </details>
    </div>
  );
}
