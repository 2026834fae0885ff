import { type ReactNode, useEffect, useId } from 'react';
import css from './parts.module.css';

/** The frame of a screen: its title, a sentence, its main actions, then its content. */
export function Page({ title, text, actions, children }: { title: string; text?: ReactNode; actions?: ReactNode; children: ReactNode }) {
  useEffect(() => {
    document.title = `${title} · tenancy`;
  }, [title]);
  return (
    <div className={css.page}>
      <div className={css.pageHead}>
        <div>
          <h1>{title}</h1>
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
