import { type Grant, type SignIn, SignInError } from './session.ts';

/** The link with a one-time code that the service prints at its start, and a cookie after it. */
export function signInBy(): SignIn {
  return {
    async start() {
      const code = new URLSearchParams(location.hash.slice(1)).get('code');
      if (!code) return ask({}).catch((error: unknown) => {
        if (error instanceof SignInError && error.why === 'expired') return null;
        throw error;
      });
      // At once, before anything can read or keep it.
      history.replaceState(null, '', location.pathname + location.search);
      return ask({ code });
    },
    renew: () => ask({}),
    async signOut() {
      await fetch('/console/session', { method: 'DELETE', headers: { 'tenancy-console': '1' } });
      return null;
    },
  };
}

async function ask(body: { code?: string }): Promise<Grant> {
  let response: Response;
  try {
    response = await fetch('/console/session', {
      method: 'POST',
      headers: { 'content-type': 'application/json', 'tenancy-console': '1' },
      body: JSON.stringify(body),
    });
  } catch (error) {
    throw new SignInError('unreachable', error);
  }
  if (response.status === 401) throw new SignInError(body.code ? 'code' : 'expired');
  if (!response.ok) throw new SignInError('unreachable');
  const { token, expiresAt } = (await response.json()) as { token: string; expiresAt: string };
  return { token, expiresAt: Date.parse(expiresAt) };
}
