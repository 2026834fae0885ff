/** What this browser remembers of a trail: its last checkpoint that was verified, and the keys. Both are public. */
export interface Remembered {
  note: string;
  size: number;
  at: string;
  keys: string;
}

const place = (organizationId: string) => `checkpoint:${organizationId}`;

export function recall(organizationId: string): Remembered | null {
  try {
    const text = localStorage.getItem(place(organizationId));
    return text ? (JSON.parse(text) as Remembered) : null;
  } catch {
    return null;
  }
}

export function remember(organizationId: string, what: Remembered | null): void {
  try {
    if (what) localStorage.setItem(place(organizationId), JSON.stringify(what));
    else localStorage.removeItem(place(organizationId));
  } catch {
    // Storage is shut: nothing is remembered, and the next verification says so.
  }
}
