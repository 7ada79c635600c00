"""The contents of a certificate in DER bytes, read by the library `cryptography`: the extra `x509`.

Python's own `ssl` describes the certificates of its own handshakes only. This gives the same for others, except for
rare kinds of alternative names besides host, address, person, URI and directory.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Final

from cryptography import x509
from cryptography.x509.oid import NameOID

from esockd_core._tls.certificate import CertificateDetails

if TYPE_CHECKING:
    from esockd_core._tls.certificate import DistinguishedName

LONG_NAMES: Final = {
    NameOID.BUSINESS_CATEGORY: "businessCategory",
    NameOID.COMMON_NAME: "commonName",
    NameOID.COUNTRY_NAME: "countryName",
    NameOID.DN_QUALIFIER: "dnQualifier",
    NameOID.DOMAIN_COMPONENT: "domainComponent",
    NameOID.EMAIL_ADDRESS: "emailAddress",
    NameOID.GENERATION_QUALIFIER: "generationQualifier",
    NameOID.GIVEN_NAME: "givenName",
    NameOID.INITIALS: "initials",
    NameOID.INN: "INN",
    NameOID.JURISDICTION_COUNTRY_NAME: "jurisdictionCountryName",
    NameOID.JURISDICTION_LOCALITY_NAME: "jurisdictionLocalityName",
    NameOID.JURISDICTION_STATE_OR_PROVINCE_NAME: "jurisdictionStateOrProvinceName",
    NameOID.LOCALITY_NAME: "localityName",
    NameOID.OGRN: "OGRN",
    NameOID.ORGANIZATIONAL_UNIT_NAME: "organizationalUnitName",
    NameOID.ORGANIZATION_IDENTIFIER: "organizationIdentifier",
    NameOID.ORGANIZATION_NAME: "organizationName",
    NameOID.POSTAL_ADDRESS: "postalAddress",
    NameOID.POSTAL_CODE: "postalCode",
    NameOID.PSEUDONYM: "pseudonym",
    NameOID.SERIAL_NUMBER: "serialNumber",
    NameOID.SNILS: "SNILS",
    NameOID.STATE_OR_PROVINCE_NAME: "stateOrProvinceName",
    NameOID.STREET_ADDRESS: "streetAddress",
    NameOID.SURNAME: "surname",
    NameOID.TITLE: "title",
    NameOID.UNSTRUCTURED_NAME: "unstructuredName",
    NameOID.USER_ID: "userId",
    NameOID.X500_UNIQUE_IDENTIFIER: "x500UniqueIdentifier",
}

TEXT_NAMES: Final[dict[type[x509.GeneralName], str]] = {
    x509.DNSName: "DNS",
    x509.RFC822Name: "email",
    x509.UniformResourceIdentifier: "URI",
    x509.IPAddress: "IP Address",
}


def read_details(der: bytes) -> CertificateDetails | None:
    """The contents of a certificate; None if the library cannot read it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about odd certificates: their senders do not read our warnings
        try:
            certificate = x509.load_der_x509_certificate(der)
            return CertificateDetails(
                subject=_read_name(certificate.subject),
                issuer=_read_name(certificate.issuer),
                not_before=certificate.not_valid_before_utc,
                not_after=certificate.not_valid_after_utc,
                serial_number=_hexadecimal(certificate.serial_number),
                alternative_names=_read_alternative_names(certificate),
            )
        except Exception:  # noqa: BLE001 - bytes of strangers: whatever is wrong with them, they are not described
            return None


def _read_name(name: x509.Name) -> DistinguishedName:
    return tuple(
        tuple((LONG_NAMES.get(each.oid, each.oid.dotted_string), _read_value(each.value)) for each in part)
        for part in name.rdns
    )


def _read_alternative_names(certificate: x509.Certificate) -> tuple[tuple[str, str | DistinguishedName], ...]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    return tuple(_read_alternative_name(name) for name in names)


def _read_alternative_name(name: x509.GeneralName) -> tuple[str, str | DistinguishedName]:
    if (kind := TEXT_NAMES.get(type(name))) is not None:
        return kind, str(name.value)
    if isinstance(name, x509.DirectoryName):
        return "DirName", _read_name(name.value)
    if isinstance(name, x509.RegisteredID):
        return "Registered ID", LONG_NAMES.get(name.value, name.value.dotted_string)
    return "othername", "<unsupported>"


def _hexadecimal(number: int) -> str:
    digits = f"{number:X}"
    return digits.rjust(len(digits) + len(digits) % 2, "0")


def _read_value(value: str | bytes) -> str | bytes:
    return value if isinstance(value, str) else value[1:]  # without the count of its unused bits
