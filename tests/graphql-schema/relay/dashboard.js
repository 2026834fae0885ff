// What a dashboard built with Relay asks: fragments that are fetched again by themselves, pages, and events by their kind.
import { graphql } from 'relay-runtime';

export const dashboard = graphql`
  query dashboardQuery($id: ID!) {
    organization(by: { id: $id }) {
      id
      ...dashboard_organization
      ...dashboard_members
    }
    viewer {
      ...dashboard_viewer
    }
  }
`;

export const organization = graphql`
  fragment dashboard_organization on Organization @refetchable(queryName: "dashboardOrganizationRefetch") {
    name
    slug
    verification
    limits {
      name
      used
      maximum
    }
  }
`;

export const members = graphql`
  fragment dashboard_members on Organization
  @refetchable(queryName: "dashboardMembersPage")
  @argumentDefinitions(count: { type: "Int", defaultValue: 20 }, cursor: { type: "String" }) {
    members(first: $count, after: $cursor) @connection(key: "dashboard_members_members") {
      edges {
        node {
          id
          roles
          user {
            ...dashboard_user
          }
          ...dashboard_membership
        }
      }
    }
  }
`;

export const membership = graphql`
  fragment dashboard_membership on Membership @refetchable(queryName: "dashboardMembershipRefetch") {
    state
    joinedAt
  }
`;

export const user = graphql`
  fragment dashboard_user on User @refetchable(queryName: "dashboardUserRefetch") {
    name
    email
  }
`;

export const project = graphql`
  fragment dashboard_project on Project @refetchable(queryName: "dashboardProjectRefetch") {
    name
    state
  }
`;

export const viewer = graphql`
  fragment dashboard_viewer on Viewer @refetchable(queryName: "dashboardViewerRefetch") {
    user {
      id
    }
    memberships(first: 10) {
      nodes {
        id
      }
    }
  }
`;

export const event = graphql`
  fragment dashboard_event on AuditEvent @refetchable(queryName: "dashboardEventRefetch") {
    action
    recordedAt
    actor {
      label
    }
    ... on OrgVerifiedEvent {
      data
    }
  }
`;

export const feed = graphql`
  subscription dashboardFeedSubscription($id: ID!, $after: Position) {
    auditEvents(organizationId: $id, after: $after) {
      position
      event {
        id
        ...dashboard_event
      }
    }
  }
`;
