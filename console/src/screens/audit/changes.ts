export interface Change {
  field: string;
  /** Undefined where the event has no value of before. */
  from: unknown;
  to: unknown;
}

/** The fields of an event as changes: `previousName` is what `name` was. */
export function changesOf(data: unknown): Change[] {
  if (typeof data !== 'object' || data === null) return [];
  const fields = data as Record<string, unknown>;
  const before = (name: string) => `previous${name.charAt(0).toUpperCase()}${name.slice(1)}`;
  const changes: Change[] = [];
  for (const [field, to] of Object.entries(fields)) {
    const now = /^previous[A-Z]/.test(field) ? field.charAt(8).toLowerCase() + field.slice(9) : null;
    if (now !== null) {
      // A value of before that stands alone: `previousState` of a member who left.
      if (!(now in fields)) changes.push({ field: now, from: to, to: undefined });
      continue;
    }
    if (before(field) in fields) changes.push({ field, from: fields[before(field)], to });
    else if (to !== null) changes.push({ field, from: undefined, to });
  }
  return changes;
}
