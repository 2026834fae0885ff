import { describe, expect, it } from 'vitest';
import { isAbout } from './Notice.tsx';

describe("a refusal's path", () => {
  it('leads to the field of the input', () => {
    expect(isAbout(['input', 'slug'], 'slug')).toBe(true);
    expect(isAbout(['slug'], 'slug')).toBe(true);
    expect(isAbout(['input', 'name'], 'slug')).toBe(false);
    expect(isAbout(null, 'slug')).toBe(false);
  });
});
