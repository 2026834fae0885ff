export interface Config {
  signIn: { kind: 'local' } | { kind: 'none' } | { kind: 'oidc'; issuer: string; clientId: string; scopes: string };
  apiPath: string;
  feedPath: string;
  version: string;
}

export async function loadConfig(): Promise<Config> {
  const response = await fetch('/console/config.json', { headers: { accept: 'application/json' } });
  if (!response.ok) throw new Error(`config.json answered ${response.status}`);
  return (await response.json()) as Config;
}
