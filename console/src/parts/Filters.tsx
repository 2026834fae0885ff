import { type ReactNode, useEffect, useState } from 'react';
import { Field } from './Field.tsx';
import css from './parts.module.css';

/** So long after the last key a search is sent. */
const TYPING_MS = 250;

/** What narrows or orders the list below it. */
export function Filters({ children }: { children: ReactNode }) {
  return <div className={css.filters}>{children}</div>;
}

/** A search that is sent once the person stops typing. */
export function SearchField({ label, value, onSearch }: { label: string; value: string; onSearch: (search: string) => void }) {
  const [typed, setTyped] = useState(value);
  const [last, setLast] = useState(value);
  if (value !== last) {
    setLast(value);
    // Something else than the typing changed it, such as a button that clears all filters.
    if (value !== typed.trim()) setTyped(value);
  }
  useEffect(() => {
    if (typed.trim() === value) return;
    const timer = setTimeout(() => onSearch(typed.trim()), TYPING_MS);
    return () => clearTimeout(timer);
  }, [typed, value]);
  return (
    <div className={css.search}>
      <Field name="search" type="search" label={label} value={typed} onChange={setTyped} />
    </div>
  );
}
