import { AxisBottom, AxisLeft } from '@visx/axis';
import { scaleBand, scaleLinear } from '@visx/scale';
import { Bar } from '@visx/shape';
import { Fragment, useLayoutEffect, useRef, useState } from 'react';
import { useIntl } from 'react-intl';
import type { ChartProps } from './Chart.tsx';
import css from './chart.module.css';

const HEIGHT = 160;
const MARGIN = { top: 8, right: 24, bottom: 24, left: 40 };
/** A label below the bars needs so much room. */
const LABEL = 72;
/** A bar is no wider, however few there are. */
const WIDEST = 32;

/** The drawing. It is a piece of its own, because the library is: screens take `Chart`. */
export default function BarChart({ bars, belowTitle, labelledBy }: Omit<ChartProps, 'says'> & { labelledBy: string }) {
  const intl = useIntl();
  const [frame, width] = useWidth();
  const inner = Math.max(width - MARGIN.left - MARGIN.right, 0);
  const x = scaleBand({ domain: bars.map((_, index) => index), range: [0, Math.min(inner, bars.length * WIDEST)], padding: 0.2 });
  const y = scaleLinear({
    domain: [-Math.max(...bars.map(({ below = 0 }) => below)), Math.max(...bars.map(({ above }) => above), belowTitle ? 0 : 1)],
    range: [HEIGHT - MARGIN.top - MARGIN.bottom, 0],
    nice: 2,
  });
  const line = y(0);
  const every = Math.max(Math.ceil(LABEL / Math.max(x.step(), 1)), 1);
  return (
    <div ref={frame} className={css.frame}>
      <svg width={width} height={HEIGHT} role="img" aria-labelledby={labelledBy}>
        <g transform={`translate(${MARGIN.left} ${MARGIN.top})`}>
          <AxisLeft
            scale={y}
            tickValues={y.ticks(3).filter(globalThis.Number.isInteger)}
            tickFormat={(count) => intl.formatNumber(Math.abs(+count))}
            hideAxisLine
            hideTicks
            tickLabelProps={{ className: css.label, dx: -4, dy: 4, textAnchor: 'end' }}
          />
          {bars.map(({ above, below = 0 }, index) => (
            <Fragment key={index}>
              <Bar
                className={belowTitle ? css.above : css.alone}
                x={x(index) ?? 0}
                width={x.bandwidth()}
                y={y(above)}
                height={line - y(above)}
              />
              <Bar className={css.below} x={x(index) ?? 0} width={x.bandwidth()} y={line} height={y(-below) - line} />
            </Fragment>
          ))}
          <AxisBottom
            top={line}
            scale={x}
            hideTicks
            tickValues={bars.map((_, index) => index).filter((index) => index % every === 0)}
            tickFormat={(index) => bars[index]?.tick ?? ''}
            axisLineClassName={css.axis!}
            tickLabelProps={{ className: css.label, dy: HEIGHT - MARGIN.top - MARGIN.bottom - line, textAnchor: 'middle' }}
          />
        </g>
      </svg>
    </div>
  );
}

/** The width that there is, also after the window's has changed. */
function useWidth() {
  const frame = useRef<HTMLDivElement>(null);
  const [width, setWidth] = useState(0);
  useLayoutEffect(() => {
    if (!frame.current) return;
    const observer = new ResizeObserver(([entry]) => setWidth(entry?.contentRect.width ?? 0));
    observer.observe(frame.current);
    return () => observer.disconnect();
  }, []);
  return [frame, width] as const;
}
