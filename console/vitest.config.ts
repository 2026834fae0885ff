import { defineConfig } from 'vitest/config';

// The client's own sources, as in vite.config.ts: nothing has to be built first.
const conditions = ['tenancy-source', 'module', 'node', 'development|production'];

export default defineConfig({
  resolve: { conditions },
  ssr: { resolve: { conditions } },
  test: { include: ['src/**/*.test.ts'], environment: 'node', server: { deps: { inline: ['@tenancy/client'] } } },
});
