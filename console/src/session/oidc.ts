import * as oauth from 'oauth4webapi';
import type { Config } from './config.ts';
import { type Grant, type SignIn, SignInError } from './session.ts';

const REDIRECT_PATH = '/console/signed-in';
/** The one entry of storage, there only while the browser is at the provider. */
const PENDING = 'sign-in';

interface Pending {
  state: string;
  verifier: string;
  nonce: string;
  /**
   * Where the person was, with what stands behind `#`: the link of an invitation has its token there. Session storage is the
   * narrowest place that outlives the way to the provider and back. Only this tab's pages of this origin read it, no server
   * sees it, and it is removed at the return, or with the tab. In `state` or in `redirect_uri` the provider would log it.
   */
  from: string;
  /** Nobody was to be asked. */
  silent?: boolean;
}

/** Authorization code flow with PKCE. Tokens, the refresh token too, stay in memory. */
export function signInBy(config: Config): SignIn {
  if (config.signIn.kind !== 'oidc') throw new Error('no provider is configured');
  const { issuer, clientId, scopes } = config.signIn;
  const client: oauth.Client = { client_id: clientId };
  const redirectUri = location.origin + REDIRECT_PATH;
  // A provider on loopback has no certificate; browsers count it as a secure place all the same.
  const insecure = { [oauth.allowInsecureRequests]: new URL(issuer).protocol === 'http:' };
  let refreshToken: string | undefined;
  let idToken: string | undefined;
  let discovered: Promise<oauth.AuthorizationServer> | null = null;

  const provider = () => {
    discovered ??= (async () => {
      const url = new URL(issuer);
      return oauth.processDiscoveryResponse(url, await oauth.discoveryRequest(url, insecure));
    })().catch((error: unknown) => {
      discovered = null;
      throw new SignInError('unreachable', error);
    });
    return discovered;
  };

  const authorizationUrl = async (pending: Pending, prompt?: 'none') => {
    const server = await provider();
    if (!server.authorization_endpoint) throw new SignInError('provider');
    const url = new URL(server.authorization_endpoint);
    for (const [name, value] of Object.entries({
      client_id: clientId,
      redirect_uri: redirectUri,
      response_type: 'code',
      scope: scopes,
      state: pending.state,
      nonce: pending.nonce,
      code_challenge: await oauth.calculatePKCECodeChallenge(pending.verifier),
      code_challenge_method: 'S256',
      ...(prompt ? { prompt } : {}),
    })) {
      url.searchParams.set(name, value);
    }
    return url;
  };

  const keep = (answer: oauth.TokenEndpointResponse): Grant => {
    refreshToken = answer.refresh_token ?? refreshToken;
    // The ID token says who signed in, to this console. An access token is for the provider, and often opaque.
    if (!answer.id_token) throw new SignInError('provider');
    idToken = answer.id_token;
    return { token: idToken, expiresAt: expiryOf(idToken) };
  };

  const exchange = async (answer: URL, pending: Pending): Promise<Grant> => {
    const server = await provider();
    try {
      const parameters = oauth.validateAuthResponse(server, client, answer, pending.state);
      const response = await oauth.authorizationCodeGrantRequest(
        server,
        client,
        oauth.None(),
        parameters,
        redirectUri,
        pending.verifier,
        insecure,
      );
      return keep(
        await oauth.processAuthorizationCodeResponse(server, client, response, { expectedNonce: pending.nonce }),
      );
    } catch (error) {
      throw error instanceof SignInError ? error : new SignInError('provider', error);
    }
  };

  const fresh = (): Pending => ({
    state: oauth.generateRandomState(),
    verifier: oauth.generateRandomCodeVerifier(),
    nonce: oauth.generateRandomNonce(),
    from: location.pathname + location.search + location.hash,
  });

  const depart = (url: URL, pending: Pending) => {
    sessionStorage.setItem(PENDING, JSON.stringify(pending));
    // The browser's history keeps the address of this page: without a token.
    history.replaceState(null, '', location.pathname + location.search);
    location.assign(url);
  };

  return {
    async start() {
      if (location.pathname !== REDIRECT_PATH) return silently();
      const answer = new URL(location.href);
      const stored = sessionStorage.getItem(PENDING);
      sessionStorage.removeItem(PENDING);
      const pending = stored ? (JSON.parse(stored) as Pending) : null;
      history.replaceState(null, '', pending?.from ?? '/console/');
      if (!pending) throw new SignInError('provider');
      // Nobody is signed in at the provider: the page with the button is the answer to that.
      if (pending.silent && answer.searchParams.has('error')) return null;
      return exchange(answer, pending);
    },
    async leave() {
      const pending = fresh();
      depart(await authorizationUrl(pending), pending);
    },
    async renew() {
      if (!refreshToken) return silently();
      const server = await provider();
      try {
        const response = await oauth.refreshTokenGrantRequest(server, client, oauth.None(), refreshToken, insecure);
        return keep(await oauth.processRefreshTokenResponse(server, client, response));
      } catch (error) {
        // Not every provider renews the ID token with the access token.
        if (error instanceof SignInError) return silently();
        if (error instanceof oauth.ResponseBodyError) throw new SignInError('expired', error);
        throw new SignInError('unreachable', error);
      }
    },
    async signOut() {
      const server = await provider();
      const hint = idToken;
      refreshToken = idToken = undefined;
      if (!server.end_session_endpoint) return null;
      const url = new URL(server.end_session_endpoint);
      if (hint) url.searchParams.set('id_token_hint', hint);
      url.searchParams.set('client_id', clientId);
      url.searchParams.set('post_logout_redirect_uri', `${location.origin}/console/`);
      return url.href;
    },
  };

  /**
   * `prompt=none` by the whole page: the provider's own session says who is there. A hidden frame is no way any more:
   * browsers keep a provider's cookies from it, and `frame-ancestors 'none'` would stop the answer.
   */
  async function silently(): Promise<never> {
    const pending = { ...fresh(), silent: true };
    depart(await authorizationUrl(pending, 'none'), pending);
    return new Promise<never>(() => undefined);
  }
}

function expiryOf(token: string): number {
  const body = token.split('.')[1] ?? '';
  const claims = JSON.parse(atob(body.replaceAll('-', '+').replaceAll('_', '/'))) as { exp?: number };
  return (claims.exp ?? 0) * 1000;
}
