import { type ReactNode, useEffect, useId } from 'react';
import { useText } from '../texts/texts.tsx';
import css from './parts.module.css';
import { Number } from './Values.tsx';

/** The frame of a screen: its title, how many its list holds, a sentence, its main actions, then its content. */
export function Page({
  title,
  count,
  text,
  actions,
  children,
}: {
  title: string;
  /** Null where the service does not count. */
  count?: number | null | undefined;
  text?: ReactNode;
  actions?: ReactNode;
  children: ReactNode;
}) {
  const t = useText();
  useEffect(() => {
    document.title = `${title} · tenancy`;
  }, [title]);
  return (
    <div className={css.page}>
      <div className={css.pageHead}>
        <div>
          <div className={css.pageTitle}>
            <h1>{title}</h1>
            {typeof count === 'number' ? (
              <span className={css.count}>
                <Number value={count} /> <span className="hidden-text">{t('list.total', { count })}</span>
              </span>
            ) : null}
          </div>
          {text ? <p>{text}</p> : null}
        </div>
        {actions ? <div className={css.pageActions}>{actions}</div> : null}
      </div>
      {children}
    </div>
  );
}

export function Card({ title, text, actions, children }: { title: string; text?: ReactNode; actions?: ReactNode; children: ReactNode }) {
  const id = useId();
  return (
    <section className={css.card} aria-labelledby={id}>
      <div className={css.cardHead}>
        <h2 id={id}>{title}</h2>
        {actions}
        {text ? <p>{text}</p> : null}
      </div>
      <div className={css.cardBody}>{children}</div>
    </section>
  );
}
