// An OpenID provider that others wrote (oidc-provider), for the sign-in test: PROVIDER_PORT, CONSOLE_URL. ID tokens live for a minute
// and some seconds, so that the console renews them while the test looks.
import Provider from 'oidc-provider';

const port = Number(process.env.PROVIDER_PORT);
const provider = new Provider(`http://127.0.0.1:${port}`, {
  clients: [
    {
      client_id: 'tenancy-console',
      token_endpoint_auth_method: 'none',
      grant_types: ['authorization_code', 'refresh_token'],
      response_types: ['code'],
      redirect_uris: [`${process.env.CONSOLE_URL}/console/signed-in`],
      post_logout_redirect_uris: [`${process.env.CONSOLE_URL}/console/`],
    },
  ],
  claims: { openid: ['sub'], email: ['email', 'email_verified'], profile: ['name'] },
  conformIdTokenClaims: false,
  clientBasedCORS: () => true,
  issueRefreshToken: async () => true,
  ttl: { IdToken: 65, AccessToken: 65, RefreshToken: 3600, Session: 3600, Grant: 3600, Interaction: 600 },
  findAccount: (_, id) => ({
    accountId: id,
    claims: () => ({ sub: id, email: `${id}@example.com`, email_verified: true, name: id }),
  }),
});
provider.listen(port, '127.0.0.1');
