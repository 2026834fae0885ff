/** Addresses inside the console. The router puts `/console` before them. */
export const places = {
  home: '/',
  invitations: '/invitations',
  create: '/new',
  organization: (id: string, path = '') => `/o/${id}${path}`,
  operate: (path = '') => `/operate${path}`,
};
