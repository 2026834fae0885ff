import type { Config } from './config.ts';

/** A token and when it ends. It lives in memory only: never in storage, a URL or a log. */
export interface Grant {
  token: string;
  expiresAt: number;
}

export type SignInFailure = 'code' | 'provider' | 'expired' | 'unreachable' | 'nobody';

export type SessionState =
  | { kind: 'starting' }
  | { kind: 'in' }
  | { kind: 'out'; why: 'never' | 'left' | SignInFailure };

/** How one kind of sign-in works. `local.ts` and `oidc.ts` are the two. */
export interface SignIn {
  /** At the start of the page: a grant where the person is signed in already, or comes back from signing in. */
  start(): Promise<Grant | null>;
  /** Leaves the page for the provider. Only where there is one. */
  leave?(): Promise<void>;
  /** A fresh grant without asking the person; throws where that cannot be. */
  renew(): Promise<Grant>;
  /** Where the browser goes next, if anywhere. */
  signOut(): Promise<string | null>;
}

export class SignInError extends Error {
  constructor(readonly why: SignInFailure, cause?: unknown) {
    super(`sign-in failed: ${why}`, { cause });
  }
}

const RENEW_BEFORE_MS = 60_000;

export class Session {
  #state: SessionState = { kind: 'starting' };
  #grant: Grant | null = null;
  #renewing: Promise<Grant> | null = null;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #listeners = new Set<() => void>();
  #signIn: SignIn | null = null;

  get state(): SessionState {
    return this.#state;
  }

  subscribe = (listener: () => void): (() => void) => {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  };

  async start(config: Config): Promise<void> {
    if (config.signIn.kind === 'none') return this.fail('nobody');
    try {
      const { signInBy } = await (config.signIn.kind === 'local' ? import('./local.ts') : import('./oidc.ts'));
      this.#signIn = signInBy(config);
      const grant = await this.#signIn.start();
      if (grant) this.#keep(grant);
      else this.#become({ kind: 'out', why: 'never' });
    } catch (error) {
      this.#become({ kind: 'out', why: error instanceof SignInError ? error.why : 'unreachable' });
    }
  }

  /** Where not even the configuration could be read. */
  fail(why: SignInFailure): void {
    this.#become({ kind: 'out', why });
  }

  /** A token that counts now. With `renew`, another than the last one. */
  token = async (renew: boolean): Promise<string> => {
    const grant = this.#grant;
    if (grant && !renew && grant.expiresAt > Date.now() + 5_000) return grant.token;
    return (await this.#renew()).token;
  };

  leave = async (): Promise<void> => {
    try {
      await this.#signIn?.leave?.();
    } catch {
      this.#become({ kind: 'out', why: 'provider' });
    }
  };

  signOut = async (): Promise<void> => {
    clearTimeout(this.#timer);
    this.#grant = null;
    const next = await this.#signIn?.signOut().catch(() => null);
    this.#become({ kind: 'out', why: 'left' });
    if (next) location.assign(next);
  };

  #renew(): Promise<Grant> {
    // One renewal at a time: refresh tokens are good once.
    this.#renewing ??= (async () => {
      if (!this.#signIn) throw new SignInError('expired');
      return this.#keep(await this.#signIn.renew());
    })()
      .catch((error: unknown) => {
        if (error instanceof SignInError && error.why !== 'unreachable') {
          this.#grant = null;
          this.#become({ kind: 'out', why: 'expired' });
        }
        throw error;
      })
      .finally(() => {
        this.#renewing = null;
      });
    return this.#renewing;
  }

  #keep(grant: Grant): Grant {
    this.#grant = grant;
    clearTimeout(this.#timer);
    const wait = Math.max(grant.expiresAt - Date.now() - RENEW_BEFORE_MS, 5_000);
    this.#timer = setTimeout(() => void this.#renew().catch(() => undefined), Math.min(wait, 2 ** 31 - 1));
    if (this.#state.kind !== 'in') this.#become({ kind: 'in' });
    return grant;
  }

  #become(state: SessionState): void {
    this.#state = state;
    for (const listener of this.#listeners) listener();
  }
}
