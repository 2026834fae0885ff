import type { EventLineFragment } from '../generated/graphql.ts';
import { useText, useTextMaybe } from '../texts/texts.tsx';
import { Time } from './Values.tsx';
import css from './event.module.css';

/** The fields of `data` that sentences name. */
export const VALUES = 'name slug roles previousRoles email limit maximum reason url plan previousPlan previousSlug namespace role externalId'.split(' ');

/** An event as a sentence: the text `event.<action>`, with the actor and the fields of `data` as values. */
export function useEventSentence(): (event: EventLineFragment) => string {
  const t = useTextMaybe();
  return (event) => {
    const data = event.data as Record<string, unknown> | null;
    const values: Record<string, string | number> = { actor: event.actor.label };
    for (const [name, value] of Object.entries(data ?? {})) {
      if (typeof value === 'string' || typeof value === 'number') values[name] = value;
      else if (Array.isArray(value)) values[name] = value.join(', ');
    }
    // Erased fields are null: the sentence keeps its shape.
    for (const name of VALUES) values[name] ??= '—';
    return t(`event.${event.action}`, `${event.actor.label}: ${event.action}`, values);
  };
}

export function EventList({ events }: { events: readonly EventLineFragment[] }) {
  const t = useText();
  const sentence = useEventSentence();
  return (
    <ol className={css.events} aria-label={t('events.label')}>
      {events.map((event) => (
        <li key={event.id} className={css.event}>
          <span className={css.dot} data-kind={event.action.split('.')[0]} aria-hidden />
          <span>
            {sentence(event)}
            <code className={css.action}>{event.action}</code>
          </span>
          <span className={css.when}>
            <Time at={event.recordedAt} relative />
          </span>
        </li>
      ))}
    </ol>
  );
}
